// --------------------------------------------------------------------------------------- controls

function refresh() { state.dirty = true; }

const rounded = (value) => value >= 100 ? value.toFixed(0) : value.toFixed(2);

function showTexts() {
  const level = leastLevel();
  $("least-text").value = level ? rounded(2 ** ((Math.floor(level) - 1) / 40)) : "all";
  $("size-text").value = `× ${(+$("size").value).toFixed(1)}`;
  $("share-text").value = `${Math.round(100 * $("share").value)} %`;
  $("time").value = state.frame;
  const pose = poseAt(state.frame);
  const seconds = pose ? `, ${pose[1].toFixed(2)} s` : "";
  $("moment").value = state.frames ? `frame ${state.frame} of ${state.frames}${seconds}` : "";
  const picture = pictureAt(state.frame);
  if (picture && $("image").src !== picture.url && !state.detail) {
    $("image").src = picture.url;
    $("caption").textContent = `input, frame ${picture.frame}`;
  }
  let total = 0;
  for (const node of state.points.values()) total += node.count;
  const count = (number) => number.toLocaleString("en");
  const shown = state.drawn === undefined ? 0 : state.drawn;
  $("status").textContent =
    `${count(shown)} of ${count(total)} points, grid of ${(+facts.cell).toPrecision(2)} ${facts.unit}` +
    (facts.unplaced ? `; ${facts.unplaced} frames without a place` : "") +
    (facts.live ? `; ${state.paused ? "paused" : facts.status}` : "");
}

function showFacts() {
  $("title").textContent = document.title = facts.title;
  $("facts").textContent = facts.lines.join(" · ");
  $("warning").textContent = facts.warning || "";
}

function loop() {
  if (state.dirty) {
    state.dirty = false;
    draw();
    showTexts();
  }
  requestAnimationFrame(loop);
}

let played = 0;
setInterval(() => {
  if (!state.playing || state.frames < 2) return;
  played += Math.max(1, state.frames / 900);
  const next = state.frame + Math.floor(played);
  played %= 1;
  if (next >= state.frames) { state.frame = state.frames - 1; setPlaying(false); } else state.frame = next;
  refresh();
}, 33);

function setPlaying(on) {
  if (on && state.frame >= state.frames - 1) state.frame = 0;
  if (on) { $("all").checked = false; $("latest").checked = false; }
  state.playing = on;
  $("play").textContent = on ? "❚❚" : "▶";
  refresh();
}

function screenshot() {
  draw();
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${facts.title.replace(/[^\w.-]+/g, "_") || "run"}-${state.frame}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

function controls() {
  for (const id of ["least", "size", "share", "colour", "follow", "all", "path", "frusta", "thumbs", "through", "dark"])
    $(id).addEventListener("input", refresh);
  $("time").addEventListener("input", () => {
    state.frame = +$("time").value;
    $("latest").checked = false;
    setPlaying(false);
  });
  $("latest").addEventListener("input", arranged);
  $("play").addEventListener("click", () => setPlaying(!state.playing));
  $("reset").addEventListener("click", () => { $("follow").checked = false; home(); refresh(); });
  $("shot").addEventListener("click", screenshot);
  measureControls();
  $("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    $("pause").textContent = state.paused ? "go on" : "pause";
    refresh();
  });
  addEventListener("resize", refresh);
  const fingers = new Map();
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY, event.button]);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    const others = [...fingers.entries()].filter(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY, before[2]]);
    leave();
    if (others.length) {
      const [x, y] = others[0][1];
      const spread = (px, py) => Math.hypot(px - x, py - y);
      orbit.distance *= spread(before[0], before[1]) / Math.max(1, spread(event.clientX, event.clientY));
      move(dx / 2, dy / 2);
    } else if (before[2] === 2 || event.shiftKey) move(dx, dy);
    else {
      orbit.turn += 0.006 * dx;
      orbit.lift = Math.max(-1.55, Math.min(1.55, orbit.lift + 0.006 * dy));
    }
    refresh();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    leave();
    orbit.distance *= Math.exp(0.0015 * Math.max(-200, Math.min(200, event.deltaY)));
    refresh();
  }, { passive: false });
}

// The user looks around: from where the camera is if it was followed.
function leave() {
  state.touched = true;
  if (!$("follow").checked) return;
  const from = viewpoint();
  $("follow").checked = false;
  orbit.distance = 0.5 * state.reach;
  orbit.target = plus(from.at, from.forward, orbit.distance);
  orbit.turn = Math.atan2(from.forward[0], from.forward[2]);
  orbit.lift = Math.asin(Math.max(-1, Math.min(1, from.forward[1])));
}

function move(dx, dy) {
  const from = viewpoint(), step = orbit.distance * Math.tan(orbit.fov / 2) * 2 / canvas.clientHeight;
  orbit.target = plus(plus(orbit.target, from.right, -dx * step), from.down, -dy * step);
}

