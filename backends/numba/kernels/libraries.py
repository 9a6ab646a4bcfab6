"""How LLVM code of kernels is collected, so that each kernel is optimized once per caller.

By default, Numba optimizes every function and generates machine code for it, then copies it to each
caller, and does both again there. The two classes here change that:

    PartLibrary    code of a kernel that only compiled code calls; neither optimized nor executed
    WholeLibrary   code of a function with the parts that it calls; optimized together, once

The modification of Numba's compiler is limited to this file and to `disk_cache`.
"""

from typing import Any

import llvmlite.binding
import numba.core.codegen
import numba.core.compiler
import numba.core.typed_passes
import numba.core.untyped_passes

_codegen: Any = numba.core.codegen  # without annotations
_compiler: Any = numba.core.compiler
_untyped: Any = numba.core.untyped_passes
_typed: Any = numba.core.typed_passes
# Linkage that Numba gives to the functions of a library when it copies them to another one.
_LINKED = llvmlite.binding.Linkage.linkonce_odr


# Passes of Numba for parts of the language that kernels do not use: inlined functions, closures,
# `with`, `raise`, `literal_unroll`, and expressions of whole arrays.
_UNUSED_PASSES = {
    _untyped.WithLifting,
    _untyped.InlineClosureLikes,
    _untyped.RewriteDynamicRaises,
    _untyped.MakeFunctionToJitFunction,
    _untyped.InlineInlinables,
    _untyped.FindLiterallyCalls,
    _untyped.LiteralUnroll,
    _untyped.LiteralPropagationSubPipelinePass,
    _typed.InlineOverloads,
    _typed.NopythonRewrites,
    _typed.NoPythonSupportedFeatureValidation,
}


class PartLibrary(_codegen.JITCodeLibrary):  # type: ignore[misc]
    """LLVM code that is compiled only as a part of other libraries."""

    def add_llvm_module(self, module: Any) -> None:
        """Add LLVM code without optimizing it."""
        self._final_module.link_in(module)

    def finalize(self) -> None:
        """Add the code of all callees."""
        for library in self._linking_libraries:
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def enable_object_caching(self) -> None:
        """Do nothing, because there is no object code."""

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, because there is no machine code."""
        return 0

    @property
    def codegen(self) -> "PartLibrary":
        """The object that gets addresses of Python globals: not the real one, without code."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing. Kernels raise no exceptions, the only code that needs this address."""


class WholeLibrary(_codegen.JITCodeLibrary):  # type: ignore[misc]
    """LLVM code of a function with that of all functions that it calls directly."""

    def add_llvm_module(self, module: Any) -> None:
        """Add LLVM code without optimizing it yet."""
        self._final_module.link_in(module)

    def _optimize_final_module(self) -> None:
        """Optimize the code together with that of all callees."""
        for function in self._final_module.functions:
            if function.linkage == _LINKED:
                function.linkage = "internal"  # inlined and deleted if it has one caller
        super()._optimize_final_module()


class _Compiler(_compiler.Compiler):  # type: ignore[misc]
    """Compiles a function to a library of a class."""

    library_class: type[Any]

    def __init__(self, typing: Any, target: Any, library: Any, *arguments: Any) -> None:
        if library is None:
            library = self.library_class(target.codegen(), "kernel")
            library.enable_object_caching()
        super().__init__(typing, target, library, *arguments)


class AllocatingCompiler(_Compiler):
    """Compiles a function that uses any part of Numba's language to a `WholeLibrary`."""

    library_class = WholeLibrary


class PartCompiler(_Compiler):
    """Compiles a function to a `PartLibrary`."""

    library_class = PartLibrary

    def define_pipelines(self) -> list[Any]:
        """Return Numba's passes without those that kernels do not need."""
        managers: list[Any] = super().define_pipelines()
        for manager in managers:
            manager.passes = [each for each in manager.passes if each[0] not in _UNUSED_PASSES]
            manager.finalize()
        return managers


class WholeCompiler(PartCompiler):
    """Compiles a function to a `WholeLibrary`."""

    library_class = WholeLibrary
