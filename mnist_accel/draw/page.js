// The page: drawing, undo, and what the network makes of the drawing.

"use strict";

const PEN = 28; // width of a stroke in pixels: a tenth of the board, about as thick as in MNIST
const MAX_MAPS = 16; // images of the first layer that are shown

const network = decode(JSON.parse(document.getElementById("network").textContent));
const FIRST = network.layers.findIndex((layer) => layer.W); // the first layer with weights
const byId = (id) => document.getElementById(id);
const board = byId("board");
const context = board.getContext("2d", { willReadFrequently: true });
const SIZE = board.width;
const SIDE = network.side; // of the images that the network takes, in pixels
let strokes = []; // each is a list of points [x, y]
let current = null; // the stroke that is being drawn
let pointer = null; // the number of the mouse, finger or pen that draws it
let isScheduled = false;

function drawStroke(stroke) {
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "#000";
  context.beginPath();
  context.moveTo(...stroke[0]);
  stroke.slice(1).forEach((point) => context.lineTo(...point));
  if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]); // a dot
  context.stroke();
}

function redraw() {
  context.clearRect(0, 0, SIZE, SIZE);
  strokes.forEach(drawStroke);
  update();
}

// Redraw at the next frame of the screen: a pen sends several events per frame.
function redrawSoon() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    redraw();
  });
}

// Return the opacity of the drawing, (SIZE × SIZE) in 0…1.
function ink() {
  const { data } = context.getImageData(0, 0, SIZE, SIZE);
  const opacity = new Float64Array(SIZE * SIZE);
  for (let at = 0; at < opacity.length; at++) opacity[at] = data[4 * at + 3] / 255;
  return opacity;
}

// Return the drawing as the network takes it, (SIDE × SIDE) in 0…1, or null if nothing is drawn.
function imageOfDrawing() {
  if (!network.centers) return plainImage(ink(), SIZE, SIZE, SIDE);
  const data = digitImage(ink(), SIZE, SIZE);
  if (!data || SIDE === IMAGE_SIZE) return data;
  return resized({ data, height: IMAGE_SIZE, width: IMAGE_SIZE }, SIDE, SIDE);
}

function update() {
  const image = imageOfDrawing();
  const { outputs, probabilities } = image ? predict(network, image) : { outputs: [], probabilities: [] };
  show(byId("seen"), image ?? new Float64Array(SIDE * SIDE), SIDE, SIDE, (value) => [0, 0, 0, 255 * value]);
  showProbabilities(probabilities);
  showFirstLayer(outputs[FIRST]);
  byId("hint").hidden = strokes.length > 0;
  const isOne = !network.centers || !image || !showsSeveralDigits(image, SIDE);
  byId("several").textContent = isOne ? "" : "⚠ Several digits? The network reads one.";
}

function showProbabilities(probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  network.classes.forEach((name, index) => {
    const row = byId("bars").children[index];
    const value = probabilities[index] ?? 0;
    row.querySelector(".fill").style.width = `${100 * value}%`;
    row.querySelector(".value").textContent = probabilities.length ? `${(100 * value).toFixed(1)} %` : "";
    row.classList.toggle("best", index === best);
  });
  byId("answer").textContent = best < 0 ? "–" : network.classes[best];
  byId("spoken").textContent =
    best < 0 ? "nothing is drawn" : `${network.classes[best]}, ${(100 * probabilities[best]).toFixed(0)} percent`;
}

// Show the outputs of a first convolution as images, or the weights of the most active linear units.
function showFirstLayer(output) {
  const container = byId("maps");
  const first = network.layers[FIRST];
  const isConv = first.kind === "conv2d";
  const count = Math.min(MAX_MAPS, first.W.shape[isConv ? 0 : 1]);
  while (container.children.length < count) container.append(document.createElement("canvas"));
  if (!output) {
    Array.from(container.children, (canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height));
    return;
  }
  if (isConv) {
    const [, height, width] = output.shape;
    for (let c = 0; c < count; c++) {
      showSigned(container.children[c], output.data.subarray(c * height * width, (c + 1) * height * width), height, width);
    }
    return;
  }
  const units = first.W.shape[1];
  const order = Array.from({ length: units }, (_, unit) => unit);
  order.sort((a, b) => output.data[b] - output.data[a]);
  order.slice(0, count).forEach((unit, at) => {
    const weights = Float64Array.from({ length: SIDE * SIDE }, (_, pixel) => first.W.data[pixel * units + unit]);
    showSigned(container.children[at], weights, SIDE, SIDE);
  });
}

// Positive values are blue, negative ones orange, as in the pictures of a run.
function showSigned(canvas, values, height, width) {
  const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  show(canvas, values, height, width, (value) =>
    value >= 0 ? [0, 114, 178, (255 * value) / largest] : [213, 94, 0, (-255 * value) / largest],
  );
}

function show(canvas, values, height, width, color) {
  [canvas.width, canvas.height] = [width, height];
  const picture = new ImageData(width, height);
  values.forEach((value, at) => picture.data.set(color(value), 4 * at));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function position(event) {
  const box = board.getBoundingClientRect();
  return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
}

board.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || current) return; // a second finger does not draw
  pointer = event.pointerId;
  board.setPointerCapture(pointer);
  current = [position(event)];
  strokes.push(current);
  redraw();
  event.preventDefault();
});
board.addEventListener("pointermove", (event) => {
  if (!current || event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  (events.length ? events : [event]).forEach((one) => current.push(position(one)));
  redrawSoon();
});
for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    current = null;
    redraw();
  });
}

function undo() {
  strokes.pop();
  current = null;
  redraw();
}
function clear() {
  strokes = [];
  current = null;
  redraw();
}
byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (key === "u" || (key === "z" && (event.ctrlKey || event.metaKey))) undo();
  else if (["c", "escape", "delete", "backspace"].includes(key) && !event.ctrlKey && !event.metaKey) clear();
});

byId("bars").append(
  ...network.classes.map((name) => {
    const row = document.createElement("li");
    row.innerHTML = '<span class="name"></span><span class="bar"><span class="fill"></span></span><span class="value"></span>';
    row.querySelector(".name").textContent = name;
    return row;
  }),
);
redraw();
