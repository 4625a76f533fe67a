"use strict";
// Player of poses: drag or arrow keys rotate, the wheel zooms after a click. Data: see page_viewer.py.
(function () {
  const data = JSON.parse(document.getElementById("pose-data").textContent);
  const byId = (name) => document.getElementById("pose-" + name);
  const canvas = byId("canvas"), flat = byId("input"), strip = byId("errors"), slider = byId("frame");
  const label = byId("label"), play = byId("play"), chooser = byId("clip"), speed = byId("speed");
  const boxes = Array.from(document.querySelectorAll("input[data-pose]"));
  const views = { front: [0, 0], side: [-Math.PI / 2, 0], top: [0, Math.PI / 2], oblique: [-0.6, 0.25] };
  const missing = -32768;
  let [yaw, pitch] = views.oblique;
  let zoom = 1, clip = null, playing = 0, started = 0;

  // Base64 of little-endian 16-bit or 8-bit numbers.
  function unpack(text, wide) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    if (!wide) return bytes;
    const view = new DataView(bytes.buffer);
    return Int16Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true));
  }

  // Clips are unpacked when first shown. Middle and size are those of all true poses, so that nothing jumps.
  function open(number) {
    const raw = data.clips[number];
    if (!raw.ready) {
      raw.points = raw.poses.map((text) => text && unpack(text, true));
      raw.keypoints = unpack(raw.input, true);
      raw.seen = unpack(raw.confidence, false);
      const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
      raw.points[0].forEach((v, i) => {
        if (v === missing) return;
        low[i % 3] = Math.min(low[i % 3], v * raw.unit); high[i % 3] = Math.max(high[i % 3], v * raw.unit);
      });
      raw.floor = high[1];
      raw.middle = low.map((v, k) => (v + high[k]) / 2);
      const [across, down, deep] = low.map((v, k) => high[k] - v);
      raw.size = 1.18 * Math.max(down, Math.hypot(across, deep)) || 1;
      raw.worst = Math.max(1, ...raw.errors.flatMap((e) => e || []).filter((e) => e !== null));
      raw.ready = true;
    }
    clip = raw;
    slider.max = clip.labels.length - 1;
    slider.value = 0;
    boxes.forEach((box, k) => { box.parentElement.classList.toggle("absent", !clip.poses[k]); });
    started = performance.now();
    draw();
  }

  function joint(points, f, j) {
    const i = 3 * (f * data.joints + j), p = [points[i], points[i + 1], points[i + 2]];
    return p.includes(missing) ? null : p.map((v) => v * clip.unit);
  }

  // Camera frame (x right, y down, z forward) to the screen; null where a coordinate is missing.
  function project(p, w, h) {
    if (!p) return null;
    const [x, y, z] = p.map((v, k) => v - clip.middle[k]);
    const across = x * Math.cos(yaw) - z * Math.sin(yaw);
    const depth = x * Math.sin(yaw) + z * Math.cos(yaw);
    const down = y * Math.cos(pitch) - depth * Math.sin(pitch);
    const scale = zoom * Math.min(w, h) / clip.size * 0.86;
    return [w / 2 + across * scale, h / 2 + down * scale];
  }

  function line(ctx, a, b) {
    if (!a || !b) return;
    ctx.beginPath(); ctx.moveTo(a[0], a[1]); ctx.lineTo(b[0], b[1]); ctx.stroke();
  }

  function floor(ctx, w, h, colour) {
    const y = clip.floor, reach = 750, x0 = clip.middle[0], z0 = clip.middle[2];
    ctx.strokeStyle = colour; ctx.lineWidth = 1; ctx.setLineDash([]); ctx.globalAlpha = 0.3;
    for (let t = -reach; t <= reach; t += 250) {
      line(ctx, project([x0 + t, y, z0 - reach], w, h), project([x0 + t, y, z0 + reach], w, h));
      line(ctx, project([x0 - reach, y, z0 + t], w, h), project([x0 + reach, y, z0 + t], w, h));
    }
    ctx.globalAlpha = 0.9; ctx.fillStyle = colour; ctx.textAlign = "center";
    const near = project([x0, y, z0 - reach - 110], w, h), far = project([x0, y, z0 + reach + 110], w, h);
    if (Math.hypot(near[0] - far[0], near[1] - far[1]) > 60) {
      ctx.fillText("camera side", near[0], near[1]); ctx.fillText("far", far[0], far[1]);
    }
    ctx.globalAlpha = 1;
  }

  // A cleared canvas in CSS pixels: its context, width and height, and the page's colours.
  function sheet(element) {
    const ratio = window.devicePixelRatio || 1, w = element.clientWidth, h = element.clientHeight;
    if (element.width !== Math.round(w * ratio) || element.height !== Math.round(h * ratio)) {
      element.width = Math.round(w * ratio); element.height = Math.round(h * ratio);
    }
    const ctx = element.getContext("2d"), style = getComputedStyle(element);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    ctx.font = "12px system-ui, sans-serif";
    return { ctx, w, h, ink: style.color, colour: (name) => style.getPropertyValue(name).trim() || style.color };
  }

  function bones(ctx, points, width) {
    data.bones.forEach(([child, parent, side]) => {
      ctx.lineWidth = width * (side ? 1 : 0.7);
      ctx.setLineDash(side === "L" ? [7, 4] : []);
      line(ctx, points[parent], points[child]);
    });
    ctx.setLineDash([]);
  }

  function shown(k) { return clip.points[k] && boxes[k].checked; }

  function drawPoses(f) {
    const { ctx, w, h, ink, colour } = sheet(canvas);
    floor(ctx, w, h, ink);
    clip.points.forEach((pose, k) => {
      if (!shown(k)) return;
      const points = Array.from({ length: data.joints }, (_, j) => project(joint(pose, f, j), w, h));
      ctx.strokeStyle = ctx.fillStyle = colour(data.colours[k]);
      ctx.lineCap = "butt";
      ctx.globalAlpha = k ? 1 : 0.6;
      bones(ctx, points, k ? 3 : 7);
      if (k) points.forEach((p) => {
        if (p) { ctx.beginPath(); ctx.arc(p[0], p[1], data.dot, 0, 2 * Math.PI); ctx.fill(); }
      });
      ctx.globalAlpha = 1;
    });
  }

  // The 2D input of the frame, filling its canvas.
  function drawInput(f) {
    const { ctx, w, h, ink } = sheet(flat);
    const at = (j, k) => clip.keypoints[2 * (f * data.joints + j) + k];
    const joints = Array.from({ length: data.joints }, (_, j) => (at(j, 0) === missing ? null : [at(j, 0), at(j, 1)]));
    const known = joints.filter((p) => p);
    if (!known.length) return;
    const low = [0, 1].map((k) => Math.min(...known.map((p) => p[k])));
    const high = [0, 1].map((k) => Math.max(...known.map((p) => p[k])));
    const scale = 0.84 * Math.min(w / (high[0] - low[0] || 1), h / (high[1] - low[1] || 1));
    const points = joints.map((p) => p && [0, 1].map((k) => [w, h][k] / 2 + (p[k] - (low[k] + high[k]) / 2) * scale));
    const sure = (j) => clip.seen[f * data.joints + j] / 255;
    ctx.strokeStyle = ctx.fillStyle = ink;
    data.bones.forEach(([child, parent, side]) => {
      ctx.globalAlpha = 0.15 + 0.85 * Math.min(sure(child), sure(parent));
      ctx.lineWidth = side ? 2 : 1.4; ctx.setLineDash(side === "L" ? [5, 3] : []);
      line(ctx, points[parent], points[child]);
    });
    ctx.setLineDash([]);
    points.forEach((p, j) => {
      if (!p) return;
      ctx.globalAlpha = 0.2 + 0.8 * sure(j);
      ctx.beginPath(); ctx.arc(p[0], p[1], 0.9 * data.dot, 0, 2 * Math.PI); ctx.fill();
    });
    ctx.globalAlpha = 1;
  }

  // Mean joint error over the clip, with the frame that is shown.
  function drawErrors(f) {
    const { ctx, w, h, ink, colour } = sheet(strip);
    const last = clip.labels.length - 1, top = 14;
    const x = (i) => (last ? 4 + (w - 8) * i / last : w / 2), y = (e) => h - 4 - (h - 4 - top) * e / clip.worst;
    ctx.fillStyle = ctx.strokeStyle = ink;
    ctx.textAlign = "left"; ctx.fillText("mean joint error, up to " + clip.worst.toFixed(0) + " mm", 4, 11);
    ctx.globalAlpha = 0.35; ctx.lineWidth = 1;
    line(ctx, [4, h - 4], [w - 4, h - 4]);
    line(ctx, [x(f), top], [x(f), h]);
    ctx.globalAlpha = 1; ctx.lineWidth = 1.5;
    clip.errors.forEach((errors, k) => {
      if (!errors || !shown(k)) return;
      ctx.strokeStyle = ctx.fillStyle = colour(data.colours[k]);
      ctx.beginPath();
      errors.forEach((e, i) => {
        if (e !== null) (i && errors[i - 1] !== null ? ctx.lineTo : ctx.moveTo).call(ctx, x(i), y(e));
      });
      ctx.stroke();
      if (errors[f] !== null) { ctx.beginPath(); ctx.arc(x(f), y(errors[f]), 3.5, 0, 2 * Math.PI); ctx.fill(); }
    });
  }

  function draw() {
    const f = Number(slider.value);
    drawPoses(f); drawInput(f); drawErrors(f);
    const parts = clip.errors.map((errors, k) => errors && data.names[k] + " "
      + (errors[f] === null ? "–" : errors[f].toFixed(1) + " mm")).filter((text) => text);
    const time = clip.fps ? ", " + (f / clip.fps).toFixed(2) + " s" : "";
    label.textContent = clip.labels[f] + time + ": mean joint error " + parts.join(", ");
  }

  function turn(dx, dy) {
    yaw += dx * 0.01;
    pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch + dy * 0.01));
    draw();
  }

  // Frames by the clock: a slow machine leaves some out instead of slowing down. Single frames stay for 0.7 s.
  function tick(now) {
    const rate = (clip.fps || 1 / 0.7) * Number(speed.value), steps = Math.floor((now - started) / 1000 * rate);
    if (steps > 0) {
      started += steps * 1000 / rate;
      slider.value = (Number(slider.value) + steps) % clip.labels.length;
      draw();
    }
    playing = requestAnimationFrame(tick);
  }

  canvas.addEventListener("pointerdown", (e) => canvas.setPointerCapture(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (canvas.hasPointerCapture(e.pointerId)) turn(e.movementX, e.movementY);
  });
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas) return;  // until it is clicked, the wheel scrolls the page
    e.preventDefault(); zoom = Math.max(0.3, Math.min(6, zoom * Math.exp(-e.deltaY * 0.001))); draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[e.key];
    if (step) { e.preventDefault(); turn(...step); }
  });
  function seek(e) {
    const share = (e.clientX - strip.getBoundingClientRect().left - 4) / Math.max(1, strip.clientWidth - 8);
    slider.value = Math.round(share * (clip.labels.length - 1)); draw();
  }
  strip.addEventListener("pointerdown", (e) => { strip.setPointerCapture(e.pointerId); seek(e); });
  strip.addEventListener("pointermove", (e) => { if (strip.hasPointerCapture(e.pointerId)) seek(e); });
  document.querySelectorAll("button[data-view]").forEach((button) => button.addEventListener("click", () => {
    [yaw, pitch] = views[button.dataset.view]; zoom = 1; draw();
  }));
  slider.addEventListener("input", draw);
  chooser.addEventListener("change", () => open(Number(chooser.value)));
  boxes.forEach((box) => box.addEventListener("change", draw));
  play.addEventListener("click", () => {
    if (playing) { cancelAnimationFrame(playing); playing = 0; } else {
      started = performance.now(); playing = requestAnimationFrame(tick);
    }
    play.textContent = playing ? "Stop" : "Play";
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  chooser.value = 0;  // a reload keeps what was chosen
  open(0);
  new ResizeObserver(draw).observe(canvas);
})();
