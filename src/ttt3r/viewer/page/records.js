// ---------------------------------------------------------------------------------------- records

const forget = {
  points(node) { gl.deleteVertexArray(node.array); gl.deleteBuffer(node.buffer); },
  paths() {},
  pictures(node) { URL.revokeObjectURL(node.url); if (node.texture) gl.deleteTexture(node.texture); },
};

function put(kind, name, node) {
  for (const each of ["points", "paths", "pictures"]) {
    const old = state[each].get(name);
    if (old) { forget[each](old); state[each].delete(name); }
  }
  if (kind) state[kind].set(name, node);
}

const readers = {
  points(head, body) {
    const array = gl.createVertexArray(), buffer = gl.createBuffer(), n = head.count;
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, body, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0); gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, 6, 0);
    gl.enableVertexAttribArray(1); gl.vertexAttribPointer(1, 3, gl.UNSIGNED_BYTE, true, 3, 6 * n);
    gl.enableVertexAttribArray(2); gl.vertexAttribPointer(2, 1, gl.UNSIGNED_BYTE, true, 1, 9 * n);
    gl.bindVertexArray(null);
    const levels = body.subarray(9 * n);
    const sorted = levels.filter((_, i) => i % Math.ceil(n / 500) === 0).sort();
    const places = new Uint16Array(body.slice(0, 6 * n).buffer);  // for measuring
    put("points", head.name, { ...head, array, buffer, sorted, places, levels: levels.slice() });
  },
  path(head, body) {
    const numbers = new Float32Array(body.slice().buffer);
    const poses = [];
    for (let i = 0; i < head.count; i++) {
      const pose = Array.from(numbers.subarray(17 * i, 17 * i + 17));
      pose[1] += head.began;
      poses.push(pose);
    }
    put("paths", head.name, { poses });
  },
  picture(head, body) {
    const blob = new Blob([body], { type: "image/jpeg" });
    put("pictures", head.name, { frame: head.frame, blob, url: URL.createObjectURL(blob) });
  },
  gone(head) { put(null, head.name); },
  meta(head) {
    if (head.facts.started !== facts.started) location.reload();  // all that was shown is another now
    Object.assign(facts, head.facts); state.version = head.version; showFacts();
  },
};

function take(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at < bytes.length) {
    const [head, body] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    const text = new TextDecoder().decode(bytes.subarray(at + 8, at + 8 + head));
    const record = JSON.parse(text);
    readers[record.kind](record, bytes.subarray(at + 8 + head, at + 8 + head + body));
    at += 8 + head + body;
  }
  state.poses = [...state.paths.values()].flatMap((path) => path.poses).sort((a, b) => a[0] - b[0]);
  arranged();
}

// What follows from the records that are there: ranges of the controls, and the size of the scene.
function arranged() {
  state.frames = facts.frames;
  $("time").max = Math.max(0, state.frames - 1);
  if (facts.live && $("latest").checked) state.frame = state.frames - 1;
  const levels = [...state.points.values()].flatMap((node) => Array.from(node.sorted)).sort((a, b) => a - b);
  state.levels = levels;
  const lows = [[], [], []];
  for (const node of state.points.values())
    for (let k = 0; k < 3; k++) lows[k].push(node.low[k], node.low[k] + node.size[k]);
  for (const pose of state.poses) placeOf(pose).forEach((value, k) => lows[k].push(value));
  const middle = lows.map((list) => list.sort((a, b) => a - b)).map((list) => {
    const n = list.length;
    return n ? [list[Math.floor(0.02 * n)], list[Math.min(n - 1, Math.floor(0.98 * n))]] : [-1, 1];
  });
  state.reach = Math.max(1e-6, Math.hypot(...middle.map(([low, high]) => high - low)) / 2);
  state.middle = middle.map(([low, high]) => (low + high) / 2);
  if (!state.touched) home();
  refresh();
}

function home() {
  Object.assign(orbit, {
    target: [...state.middle], turn: 0.35, lift: 0.55, distance: 1.75 * state.reach });
}

const sureRange = () => {
  const n = state.levels ? state.levels.length : 0;
  if (!n) return [1, 255];
  const [low, high] = [state.levels[Math.floor(0.02 * n)], state.levels[Math.floor(0.98 * (n - 1))]];
  return [low, Math.max(high, low + 1)];
};
// The slider goes through the points by rank, so that each step hides as many.
const leastLevel = () => {
  const share = +$("least").value, n = state.levels ? state.levels.length : 0;
  return share === 0 || !n ? 0 : state.levels[Math.min(n - 1, Math.floor(share * n))] + 0.5;
};

