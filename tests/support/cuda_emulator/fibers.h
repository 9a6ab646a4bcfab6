// Fibers: a stack for each, and the switch from one to another. Included by scheduler.cpp alone.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include <sys/mman.h>

#ifndef __x86_64__
#error "the context switch of the emulator is written for x86-64"
#endif

namespace emulator {

constexpr size_t STACK_BYTES = 64 << 10;

// Saves the callee-saved registers on the current stack and continues on another stack.
extern "C" void emulator_switch(void** saved_stack_pointer, void* new_stack_pointer);
asm(R"(.text
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

// Returns stack number `number`. Stacks are kept for later launches.
inline char* stack(size_t number) {
  static std::vector<char*> stacks;
  while (stacks.size() <= number) {
    void* memory = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("the emulator cannot allocate the stack of a thread");
      abort();
    }
    stacks.push_back(static_cast<char*>(memory));
  }
  return stacks[number];
}

// Prepares a stack so that the first switch to it calls a function; returns its stack pointer.
inline void* prepare_stack(char* stack, void (*function)()) {
  void** top = reinterpret_cast<void**>(stack + STACK_BYTES);
  *--top = nullptr;  // at its entry a function expects the stack 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(function);
  for (int saved_register = 0; saved_register < 6; saved_register++) *--top = nullptr;
  return top;
}

}  // namespace emulator
