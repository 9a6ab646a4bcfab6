// Sizes of a pooling layer.
#pragma once

struct PoolShape {
  int height, width;  // sizes of an image
  int cell_rows, cell_columns;
  int size;    // side of a patch, in pixels
  int stride;  // distance between patches, in pixels
};
