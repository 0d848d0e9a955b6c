// ---------------------------------------------------------------------------------------- drawing

const POINT_SHADER = `#version 300 es
precision highp float;
layout(location=0) in vec3 place; layout(location=1) in vec3 colour; layout(location=2) in float level;
uniform mat4 matrix; uniform vec3 low, span, tint; uniform float size, least, time; uniform int mode;
uniform vec2 sure; uniform sampler2D palette; uniform vec3 seenFrom, lookFrom; uniform bool through;
out vec3 shade;
void main() {
  vec3 world = low + place * span;
  gl_Position = matrix * vec4(world, 1.0);
  float l = level * 255.0;
  // What is looked at from its back: the camera that saw it was on the other side.
  bool back = through && dot(normalize(world - seenFrom), normalize(world - lookFrom)) < -0.1;
  if (l < least || back) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); }
  gl_PointSize = clamp(size / gl_Position.w, 1.5, 40.0);
  if (mode == 1) shade = tint;
  else if (mode == 2)
    shade = texture(palette, vec2(clamp((l - sure.x) / (sure.y - sure.x), 0.002, 0.998), 0.25)).rgb;
  else if (mode == 3) shade = texture(palette, vec2(clamp(time, 0.002, 0.998), 0.25)).rgb;
  else shade = colour;
}`;
const POINT_PAINT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 result;
void main() {
  vec2 d = gl_PointCoord - 0.5;
  if (dot(d, d) > 0.25) discard;
  result = vec4(shade, 1.0);
}`;
const LINE_SHADER = `#version 300 es
precision highp float;
layout(location=0) in vec3 place; layout(location=1) in vec4 extra;
uniform mat4 matrix; uniform vec2 shift; out vec4 passed;
void main() {
  gl_Position = matrix * vec4(place, 1.0);
  gl_Position.xy += shift * gl_Position.w; passed = extra;
}`;
const LINE_PAINT = `#version 300 es
precision mediump float; in vec4 passed; uniform sampler2D palette; uniform vec4 fixedColour;
out vec4 result;
void main() {
  result = fixedColour.a > 0.0 ? fixedColour : vec4(texture(palette, vec2(passed.x, 0.25)).rgb, 1.0);
}`;
const IMAGE_PAINT = `#version 300 es
precision mediump float; in vec4 passed; uniform sampler2D picture; out vec4 result;
void main() { result = vec4(texture(picture, passed.xy).rgb, 1.0); }`;

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    at[name] = gl.getUniformLocation(made, name);
  }
  return { made, at };
}

let pointProgram, lineProgram, imageProgram, lineArray, lineBuffer;

function prepare() {
  pointProgram = program(POINT_SHADER, POINT_PAINT);
  lineProgram = program(LINE_SHADER, LINE_PAINT);
  imageProgram = program(LINE_SHADER, IMAGE_PAINT);
  const bytes = Uint8Array.from(atob(facts.palettes), (c) => c.charCodeAt(0));
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 2, 0, gl.RGB, gl.UNSIGNED_BYTE, bytes);
  smooth();
  state.palette = gl.getParameter(gl.TEXTURE_BINDING_2D);
  lineArray = gl.createVertexArray();
  lineBuffer = gl.createBuffer();
  gl.bindVertexArray(lineArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
  for (const [place, count, offset] of [[0, 3, 0], [1, 4, 12]]) {
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, count, gl.FLOAT, false, 28, offset);
  }
  gl.bindVertexArray(null);
  gl.enable(gl.DEPTH_TEST);
}

function smooth() {
  for (const [name, value] of [
    [gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
    [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]])
    gl.texParameteri(gl.TEXTURE_2D, name, value);
}

function segmentColour(number) {
  const hue = (number * 0.381966) % 1;
  return [0, 1, 2].map((k) => 0.58 + 0.36 * Math.cos(2 * Math.PI * (hue - k / 3)));
}

function visible(node) { return $("all").checked || node.frame <= state.frame; }

function draw() {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth * scale | 0, canvas.clientHeight * scale | 0];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  gl.viewport(0, 0, width, height);
  const ground = $("dark").checked ? [0.075, 0.085, 0.105] : [0.97, 0.975, 0.98];
  gl.clearColor(...ground, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const from = viewpoint();
  const { matrix, pixels } = projection(from);
  drawPoints(matrix, pixels, from.at);
  if ($("path").checked) drawPath(matrix);
  if ($("frusta").checked) drawFrusta(matrix);
  if (measuring.ends.length) drawMeasured(matrix);
}

function drawPoints(matrix, pixels, lookFrom) {
  const { made, at } = pointProgram;
  gl.useProgram(made);
  gl.uniformMatrix4fv(at.matrix, false, matrix);
  gl.uniform1f(at.size, 1.8 * facts.cell * $("size").value * pixels);
  gl.uniform1f(at.least, leastLevel());
  gl.uniform1i(at.mode, +$("colour").value);
  gl.uniform2f(at.sure, ...sureRange());
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_2D, state.palette);
  gl.uniform3f(at.lookFrom, ...lookFrom);
  const share = +$("share").value;
  state.drawn = 0;
  for (const node of state.points.values()) {
    if (!visible(node)) continue;
    const seen = poseAt(node.frame);
    gl.uniform1i(at.through, seen && $("through").checked ? 1 : 0);
    if (seen) gl.uniform3f(at.seenFrom, ...placeOf(seen));
    gl.uniform3f(at.low, ...node.low);
    gl.uniform3f(at.span, ...node.size);
    gl.uniform3f(at.tint, ...segmentColour(node.segment));
    gl.uniform1f(at.time, node.frame / Math.max(state.frames - 1, 1));
    gl.bindVertexArray(node.array);
    const count = Math.ceil(node.count * share);
    gl.drawArrays(gl.POINTS, 0, count);
    state.drawn += count;
  }
  gl.bindVertexArray(null);
}

function drawLines(kind, numbers, matrix, colour, widths) {
  const { made, at } = lineProgram;
  gl.useProgram(made);
  gl.bindVertexArray(lineArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
  gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.DYNAMIC_DRAW);
  gl.uniformMatrix4fv(at.matrix, false, matrix);
  gl.uniform4f(at.fixedColour, ...(colour || [0, 0, 0, 0]));
  gl.bindTexture(gl.TEXTURE_2D, state.palette);
  const [dx, dy] = [2 / canvas.width, 2 / canvas.height];
  for (const [x, y] of widths) { // lines are one pixel wide, so wider ones are drawn several times
    gl.uniform2f(at.shift, x * dx, y * dy);
    gl.drawArrays(kind, 0, numbers.length / 7);
  }
  gl.bindVertexArray(null);
}
const THIN = [[0, 0]];
const THICK = [[0, 0], [1, 0], [0, 1], [1, 1], [-1, 0], [0, -1]];

const placeOf = (pose) => [pose[6], pose[10], pose[14]];

function drawPath(matrix) {
  const shown = state.poses.filter((pose) => $("all").checked || pose[0] <= state.frame);
  if (shown.length < 2) return;
  const numbers = new Float32Array(7 * shown.length);
  shown.forEach((pose, i) => {
    numbers.set([...placeOf(pose), 0.15 + 0.8 * pose[0] / Math.max(state.frames - 1, 1), 0, 0, 0], 7 * i);
  });
  drawLines(gl.LINE_STRIP, numbers, matrix, null, THICK);
}

// The four corners of a camera's image, in the world.
function corners(pose, depth) {
  const at = placeOf(pose), [sx, sy] = [pose[15], pose[16]];
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => {
    const local = [x * sx * depth, y * sy * depth, depth];
    return [0, 1, 2].map((r) => at[r] + dot([pose[3 + 4 * r], pose[4 + 4 * r], pose[5 + 4 * r]], local));
  });
}

function cameras() {
  const shown = state.poses.filter((pose) => $("all").checked || pose[0] <= state.frame);
  const step = Math.max(1, Math.ceil(shown.length / 24));
  const some = shown.filter((_, i) => i % step === 0);
  return { some, now: poseAt(state.frame) };
}

function drawFrusta(matrix) {
  const { some, now } = cameras();
  if (!now) return;
  const size = 0.045 * state.reach;
  const lines = [];
  const add = (pose, depth, list) => {
    const at = placeOf(pose), edge = corners(pose, depth);
    edge.forEach((corner, i) => {
      for (const end of [at, corner, corner, edge[(i + 1) % 4]]) list.push(...end, 0, 0, 0, 0);
    });
  };
  const own = $("follow").checked ? null : now;
  some.forEach((pose) => pose !== now && add(pose, size, lines));
  const grey = $("dark").checked ? [0.62, 0.67, 0.74, 1] : [0.35, 0.39, 0.45, 1];
  drawLines(gl.LINES, new Float32Array(lines), matrix, grey, THIN);
  const current = [];
  if (own) add(own, 2 * size, current);
  drawLines(gl.LINES, new Float32Array(current), matrix, [1, 0.45, 0.1, 1], THICK);
  if (!$("thumbs").checked) return;
  for (const pose of some) if (pose !== now) drawThumb(pose, size, matrix);
  if (own) drawThumb(own, 2 * size, matrix);
}

function drawThumb(pose, depth, matrix) {
  const picture = pictureAt(pose[0]);
  const texture = picture && textureOf(picture);
  if (!texture) return;
  const [a, b, c, d] = corners(pose, depth);
  const numbers = new Float32Array([
    ...a, 0, 0, 0, 0, ...b, 1, 0, 0, 0, ...c, 1, 1, 0, 0,
    ...a, 0, 0, 0, 0, ...c, 1, 1, 0, 0, ...d, 0, 1, 0, 0]);
  const { made, at } = imageProgram;
  gl.useProgram(made);
  gl.bindVertexArray(lineArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
  gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.DYNAMIC_DRAW);
  gl.uniformMatrix4fv(at.matrix, false, matrix);
  gl.uniform2f(at.shift, 0, 0);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.drawArrays(gl.TRIANGLES, 0, 6);
  gl.bindVertexArray(null);
}

function textureOf(picture) {
  if (picture.texture || picture.coming) return picture.texture;
  picture.coming = true;
  createImageBitmap(picture.blob, { resizeWidth: 128 }).then((bitmap) => {
    picture.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, picture.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    smooth();
    bitmap.close();
    refresh();
  });
  return null;
}

function pictureAt(frame) {
  let best = null;
  for (const picture of state.pictures.values())
    if (picture.frame <= frame && (!best || picture.frame > best.frame)) best = picture;
  return best;
}

