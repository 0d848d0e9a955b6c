"use strict";
// Shows a scene: points, the camera's way, and the images of its frames. Records come from the page
// itself or, live, from the server that sent it; see wire.py for what they hold.

const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts-of-run").textContent);
const canvas = $("view");
const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
const state = {
  points: new Map(), paths: new Map(), pictures: new Map(), // by name
  poses: [], // of all paths, in the order of their frames
  frame: 0, frames: 0, playing: false, paused: false, touched: false, version: 0, dirty: true,
};
window.ttt3r = state; // for tests and the curious

// ---------------------------------------------------------------- small matrices, column by column

const multiply = (a, b) => {
  const result = new Float32Array(16);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += a[k * 4 + r] * b[c * 4 + k];
    result[c * 4 + r] = sum;
  }
  return result;
};
const plus = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a) || 1; return [a[0] / n, a[1] / n, a[2] / n]; };

