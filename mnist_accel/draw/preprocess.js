// The conversion of a drawing to an image in the format of MNIST.
//
// The steps and constants are those of `mnist_accel.data.digit_image` for a picture that contains
// nothing but ink on paper. The pen is so wide that no stroke needs to be thickened.

"use strict";

const IMAGE_SIZE = 28;
const BOX_SIZE = 20;
const CENTER = 14;

// Return a Gaussian blur of an image (height × width), which continues at its border as in a mirror.
function blurred(image, height, width, sigma) {
  const radius = Math.floor(4 * sigma + 0.5);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, k) => Math.exp(-((k - radius) ** 2) / (2 * sigma ** 2)));
  const sum = kernel.reduce((a, b) => a + b);
  const mirrored = (index, length) => (index < 0 ? -index - 1 : index >= length ? 2 * length - index - 1 : index);
  const along = (values, isRows) => {
    const result = new Float64Array(values.length);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = values[row * width + column];
        if (value === 0) continue; // most pixels of a drawing are 0
        for (let k = -radius; k <= radius; k++) {
          const at = isRows
            ? mirrored(row + k, height) * width + column
            : row * width + mirrored(column + k, width);
          result[at] += (kernel[k + radius] / sum) * value;
        }
      }
    }
    return result;
  };
  return along(along(image, true), false);
}

// Return for each pixel the number of its connected part in the mask, counted from 1; 0 outside.
function connectedParts(mask, height, width) {
  const parts = new Int32Array(mask.length);
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || parts[start]) continue;
    parts[start] = ++count;
    const stack = [start];
    while (stack.length) {
      const at = stack.pop();
      const row = Math.floor(at / width);
      for (let i = Math.max(0, row - 1); i <= Math.min(height - 1, row + 1); i++) {
        const column = at % width;
        for (let j = Math.max(0, column - 1); j <= Math.min(width - 1, column + 1); j++) {
          const next = i * width + j;
          if (mask[next] && !parts[next]) {
            parts[next] = count;
            stack.push(next);
          }
        }
      }
    }
  }
  return { parts, count };
}

// Return the ink without specks, scaled so that full ink is 1; null if there is no ink.
function cleanInk(ink, height, width) {
  const soft = blurred(ink, height, width, Math.max(height, width) / 500);
  const largest = soft.reduce((a, b) => Math.max(a, b), 0);
  if (largest < 0.04) return null;
  const mask = soft.map((value) => (value > 0.1 * largest ? 1 : 0));
  const { parts, count } = connectedParts(mask, height, width);
  const amounts = new Float64Array(count + 1);
  parts.forEach((part, at) => (amounts[part] += part ? soft[at] : 0));
  const most = Math.max(...amounts);
  const isStroke = parts.map((part) => (part && amounts[part] >= 0.1 * most ? 1 : 0));
  const values = Float64Array.from(soft.filter((_, at) => isStroke[at])).sort();
  const position = 0.9 * (values.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, values.length - 1);
  const full = values[below] + (position - below) * (values[above] - values[below]);
  return soft.map((value, at) => (isStroke[at] ? Math.min(1, value / full) : 0));
}

// Return the smallest part of an image that contains all values above 0.1.
function cropped(image, height, width) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (image[row * width + column] > 0.1) {
        [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
        [left, right] = [Math.min(left, column), Math.max(right, column)];
      }
    }
  }
  const [rows, columns] = [bottom - top + 1, right - left + 1];
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const begin = (top + row) * width + left;
    result.set(image.subarray(begin, begin + columns), row * columns);
  }
  return { data: result, height: rows, width: columns };
}

// Return the weights with which an axis of `from` pixels is resized to `to` pixels, as Pillow does:
// with a box filter to reduce, with a triangle filter to enlarge.
function resizeWeights(from, to, reduces) {
  const scale = from / to;
  const filterScale = Math.max(scale, 1);
  const support = (reduces ? 0.5 : 1) * filterScale;
  const filter = reduces ? (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) : (x) => Math.max(0, 1 - Math.abs(x));
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(from, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let at = first; at < last; at++) weights.push(filter((at - center + 0.5) / filterScale));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

function resized(image, height, width) {
  const reduces = Math.max(height, width) < Math.max(image.height, image.width);
  const columns = resizeWeights(image.width, width, reduces);
  const rows = resizeWeights(image.height, height, reduces);
  const narrow = new Float64Array(image.height * width);
  for (let row = 0; row < image.height; row++) {
    columns.forEach(({ first, weights }, column) => {
      let sum = 0;
      weights.forEach((weight, k) => (sum += weight * image.data[row * image.width + first + k]));
      narrow[row * width + column] = sum;
    });
  }
  const result = new Float64Array(height * width);
  rows.forEach(({ first, weights }, row) => {
    for (let column = 0; column < width; column++) {
      let sum = 0;
      weights.forEach((weight, k) => (sum += weight * narrow[(first + k) * width + column]));
      result[row * width + column] = sum;
    }
  });
  return result;
}

// Round like Python: halves to the even neighbor.
function rounded(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

// Return a digit as 28 × 28 pixels in 0…1, or null if nothing is drawn.
function digitImage(ink, height, width) {
  const clean = cleanInk(ink, height, width);
  if (!clean) return null;
  const crop = cropped(clean, height, width);
  const scale = BOX_SIZE / Math.max(crop.height, crop.width);
  const [rows, columns] = [crop.height, crop.width].map((side) => Math.max(1, rounded(side * scale)));
  const digit = resized(crop, rows, columns);
  const largest = Math.max(...digit);
  let [mass, middleY, middleX] = [0, 0, 0];
  digit.forEach((value, at) => {
    mass += value;
    middleY += value * Math.floor(at / columns);
    middleX += value * (at % columns);
  });
  const offset = (middle, side) => Math.min(Math.max(rounded(CENTER - middle / mass), 0), IMAGE_SIZE - side);
  const [top, left] = [offset(middleY, rows), offset(middleX, columns)];
  const image = new Float64Array(IMAGE_SIZE * IMAGE_SIZE);
  digit.forEach((value, at) => {
    const row = top + Math.floor(at / columns);
    image[row * IMAGE_SIZE + left + (at % columns)] = rounded((255 * value) / largest) / 255;
  });
  return image;
}

// Return a whole drawing as side × side pixels in 0…1, or null if nothing is drawn.
function plainImage(ink, height, width, side) {
  if (!ink.some((value) => value > 0)) return null;
  return resized({ data: ink, height, width }, side, side);
}

// Return whether an image (side × side) shows several digits beside each other: parts of similar height
// that share hardly any column. `mnist_accel.data.digit_image.groups` separates strokes in this way.
function showsSeveralDigits(image, side) {
  const mask = image.map((value) => (value > 0.3 ? 1 : 0));
  const { parts, count } = connectedParts(mask, side, side);
  const rows = Array.from({ length: count }, () => new Set());
  const columns = Array.from({ length: count }, () => new Set());
  parts.forEach((part, at) => {
    if (!part) return;
    rows[part - 1].add(Math.floor(at / side));
    columns[part - 1].add(at % side);
  });
  const highest = Math.max(...rows.map((set) => set.size));
  const tall = columns.filter((_, part) => rows[part].size > 0.5 * highest);
  const shared = (a, b) => Array.from(a).filter((column) => b.has(column)).length;
  const areBeside = (a, b) => shared(a, b) < 0.3 * Math.min(a.size, b.size);
  return tall.some((a, n) => tall.slice(n + 1).some((b) => areBeside(a, b)));
}
