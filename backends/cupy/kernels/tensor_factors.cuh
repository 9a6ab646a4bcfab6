// The factors of tensor_tile.cuh: their layout in shared memory, and how threads load them, convert
// them to bfloat16 and store them there. K_TILE terms are in shared memory at a time.
//
// A *line* is a row of the left factor or a column of the right one. Lane 4 g + t of a warp multiplies
// terms 8 t to 8 t + 7 of its lines, in two halves of four terms, one for each mma_16x8x16(). The order
// of the terms differs from that of the instruction, in both factors.
//
// Options: as in tensor_tile.cuh.
#pragma once

#include "rows.cuh"

constexpr int TILE_THREADS = TILE_WARPS * WARP_SIZE;
constexpr int K_TILE = 32;
constexpr int OCTETS = K_TILE / 8;  // of a line
constexpr int PARTS = 3;

// Four registers with two bfloat16 each, which a lane reads by one instruction.
//
//   left factor     one half of the terms of lines 2 i and 2 i + 1: the first two terms of both lines,
//                   then the last two terms of both lines
//   right factor    both halves of the terms of one line
struct alignas(16) Quad {
  uint32 pairs[4];
};

struct TensorShared {
  Quad left[TILE_ROWS / 16][2][WARP_SIZE];  // by rows, half, left_slot()
  Quad right[TILE_COLUMNS / 8][PARTS][WARP_SIZE];  // by columns, part, right_slot()
};

// The position of the Quad of lane 4 g + t. Eight lanes access shared memory at a time; the
// exclusive-or gives them different banks, when lanes read and when threads store.
DEVICE int left_slot(int g, int t, int half) { return (4 * g + t) ^ ((half ^ g / 2) & 1) * 4; }
DEVICE int right_slot(int g, int t) { return (4 * g + t) ^ g / 2; }

// Returns the upper halves of two floats. They are the same numbers in bfloat16 if the lower halves
// are 0.
DEVICE uint32 upper_halves(float first, float second) {
  return __byte_perm(__float_as_uint(first), __float_as_uint(second), 0x7632);
}

DEVICE float byte_of(uint32 word, int number) { return float(word >> 8 * number & 0xff); }

// Loads rows of images as left factor; the terms are pixels. An item is a word, which has four pixels,
// of two rows.
struct PixelLoader {
  static constexpr int words_per_row = K_TILE / 4;
  static constexpr int count = TILE_ROWS / 2 * words_per_row / TILE_THREADS;  // items per thread
  static_assert(count * TILE_THREADS == TILE_ROWS / 2 * words_per_row, "whole items per thread");
  const uint8* next[count][2];
  uint32 words[count][2];

  DEVICE static int row_pair(int i) { return (threadIdx.x + i * TILE_THREADS) / words_per_row; }
  DEVICE static int word() { return threadIdx.x % words_per_row; }

  // Rows beyond the last image repeat it; their results are never stored.
  DEVICE PixelLoader(const GatheredRows<uint8>& images, int first_row) {
#pragma unroll
    for (int i = 0; i < count; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int row = min(first_row + 2 * row_pair(i) + j, images.count - 1);
        next[i][j] = images.address(row, 4 * word());
      }
  }

  // Loads the next K_TILE terms, of which only the first `remaining`, a multiple of 4, exist.
  DEVICE void load(int remaining) {
#pragma unroll
    for (int i = 0; i < count; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        words[i][j] = 0;
        if (4 * word() < remaining)
          words[i][j] = *reinterpret_cast<const uint32*>(next[i][j]);
        next[i][j] += K_TILE;
      }
  }

  DEVICE void store(TensorShared& shared) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      Quad terms;
#pragma unroll
      for (int number = 0; number < 4; number++) {
        const uint32 four = words[i][number % 2];
        const int pixel = number / 2 * 2;
        terms.pairs[number] = upper_halves(byte_of(four, pixel), byte_of(four, pixel + 1));
      }
      const int half = word() % 2;
      shared.left[row_pair(i) / 8][half][left_slot(row_pair(i) % 8, word() / 2, half)] = terms;
    }
  }
};

// Loads transposed images as left factor: the lines are pixels, then one line of ones; the terms are
// images. An item is a word, which has four pixels, of eight images.
struct TransposedPixelLoader {
  static constexpr int items = TILE_ROWS / 4 * OCTETS;
  static constexpr int count = (items + TILE_THREADS - 1) / TILE_THREADS;  // items per thread
  static_assert(items % WARP_SIZE == 0, "all lanes of a warp have the same number of items");
  GatheredRows<uint8> images;
  int first_line;
  int next_image, row;  // image of this lane in the next load, and its row of the data set
  uint32 words[count][8];

  DEVICE static int item(int i) { return threadIdx.x + i * TILE_THREADS; }
  DEVICE static int octet() { return threadIdx.x % OCTETS; }

  DEVICE TransposedPixelLoader(const GatheredRows<uint8>& images, int first_line)
      : images(images), first_line(first_line), next_image(threadIdx.x % WARP_SIZE) {
    row = next_row();
  }

  DEVICE int next_row() const { return images.rows[min(next_image, images.count - 1)]; }

  // Loads the next K_TILE terms, of which only the first `remaining` exist.
  DEVICE void load(int remaining) {
    static_assert(K_TILE == WARP_SIZE, "a lane per term");
    int rows[8];
#pragma unroll
    for (int j = 0; j < 8; j++) rows[j] = __shfl_sync(FULL_MASK, row, 8 * octet() + j);
    next_image += K_TILE;
    row = next_row();  // early, because the addresses of the next load depend on it
#pragma unroll
    for (int i = 0; i < count; i++) {
      if (item(i) >= items) break;
      const int line = first_line + item(i) / OCTETS * 4;
      const uint32 beyond_pixels = line == images.width ? 255 : 0;  // 255 is a pixel with value 1
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const bool exists = 8 * octet() + j < remaining;
        const uint8* const pixels = images.images + int64(rows[j]) * images.width + line;
        words[i][j] = exists ? beyond_pixels : 0;
        if (exists && line < images.width)
          words[i][j] = *reinterpret_cast<const uint32*>(pixels);
      }
    }
  }

  DEVICE void store(TensorShared& shared) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      if (item(i) >= items) break;
#pragma unroll
      for (int pixel = 0; pixel < 4; pixel += 2) {
        const int line_pair = item(i) / OCTETS * 2 + pixel / 2, g = line_pair % 8;
#pragma unroll
        for (int half = 0; half < 2; half++)
          shared.left[line_pair / 8][half][left_slot(g, octet(), half)] = terms(i, pixel, half);
      }
    }
  }

  // Returns a half of the terms of two pixels.
  DEVICE Quad terms(int i, int pixel, int half) const {
    Quad result;
#pragma unroll
    for (int number = 0; number < 4; number++) {
      const int image = 4 * half + number / 2 * 2, line = pixel + number % 2;
      result.pairs[number] =
          upper_halves(byte_of(words[i][image], line), byte_of(words[i][image + 1], line));
    }
    return result;
  }
};

// Loads the right factor, which is stored with one row per term, and splits its elements into parts.
struct FloatLoader {
  static constexpr int count = TILE_COLUMNS * OCTETS / TILE_THREADS;  // octets per thread
  static constexpr int stride = TILE_THREADS / TILE_COLUMNS;  // octets between those of a thread
  static_assert(stride * TILE_COLUMNS == TILE_THREADS, "a thread has one column");
  const float* next;
  int width;
  float values[count][8];

  DEVICE static int column() { return threadIdx.x % TILE_COLUMNS; }
  DEVICE static int octet(int i) { return threadIdx.x / TILE_COLUMNS + i * stride; }

  // Columns beyond the last one repeat it; their results are never stored.
  DEVICE FloatLoader(const DenseRows& matrix, int first_column)
      : next(matrix.address(8 * octet(0), min(first_column + column(), matrix.width - 1))),
        width(matrix.width) {}

  // Loads the next K_TILE terms, of which only the first `remaining` exist.
  DEVICE void load(int remaining) {
#pragma unroll
    for (int i = 0; i < count; i++) {
#pragma unroll
      for (int j = 0; j < 8; j++) {
        values[i][j] = 0;
        if (8 * octet(i) + j < remaining) values[i][j] = *next;
        next += width;  // one address at a time takes fewer registers than all of them
      }
      next += 8 * (stride - 1) * width;
    }
  }

  DEVICE void store(TensorShared& shared) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      Quad parts[PARTS];
#pragma unroll
      for (int pair = 0; pair < 4; pair++) {
        float first = values[i][2 * pair], second = values[i][2 * pair + 1];
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
          parts[part].pairs[pair] = upper_halves(first, second);
          first -= leading_part(first);  // exact
          second -= leading_part(second);
        }
      }
#pragma unroll
      for (int part = 0; part < PARTS; part++)
        shared.right[column() / 8][part][right_slot(column() % 8, octet(i))] = parts[part];
    }
  }

  // Returns the first 8 significant bits.
  DEVICE static float leading_part(float x) {
    return __uint_as_float(__float_as_uint(x) & 0xffff0000u);
  }
};
