"use strict";
// Shows models (STL, OBJ) by WebGL, measures them, and pins remarks to them. Drag or arrow keys turn, wheel or +/- zooms;
// a click on the model chooses the place for the next remark. Nothing is fetched but the model itself.
(() => {
  const MOST = 80e6; // bytes: a telephone holds no more
  const num = (value, digits = 1) => value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: digits });

  function readStl(buffer) {
    const view = new DataView(buffer), count = buffer.byteLength >= 84 ? view.getUint32(80, true) : 0;
    if (buffer.byteLength === 84 + 50 * count && count) {
      const out = new Float32Array(count * 9);
      for (let i = 0, at = 96; i < count; i++, at += 50) for (let k = 0; k < 9; k++) out[i * 9 + k] = view.getFloat32(at + 4 * k, true);
      return out;
    }
    const text = new TextDecoder().decode(buffer), found = [];
    for (const m of text.matchAll(/vertex\s+(\S+)\s+(\S+)\s+(\S+)/g)) found.push(+m[1], +m[2], +m[3]);
    return new Float32Array(found);
  }

  function readObj(buffer) {
    const points = [], out = [];
    for (const line of new TextDecoder().decode(buffer).split("\n")) {
      const part = line.trim().split(/\s+/);
      if (part[0] === "v") points.push([+part[1], +part[2], +part[3]]);
      if (part[0] !== "f") continue;
      const corners = part.slice(1).map((c) => { const n = parseInt(c); return points[n < 0 ? points.length + n : n - 1]; });
      for (let i = 2; i < corners.length; i++) for (const c of [corners[0], corners[i - 1], corners[i]]) if (c) out.push(...c);
    }
    return new Float32Array(out.length % 9 ? [] : out);
  }

  function measure(t) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    let volume = 0, area = 0;
    for (let i = 0; i < t.length; i += 9) {
      const [ax, ay, az, bx, by, bz, cx, cy, cz] = t.subarray(i, i + 9);
      volume += (ax * (by * cz - bz * cy) - ay * (bx * cz - bz * cx) + az * (bx * cy - by * cx)) / 6;
      area += Math.hypot((by - ay) * (cz - az) - (bz - az) * (cy - ay), (bz - az) * (cx - ax) - (bx - ax) * (cz - az), (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2;
      for (let k = 0; k < 9; k++) { const a = k % 3, v = t[i + k]; if (v < low[a]) low[a] = v; if (v > high[a]) high[a] = v; }
    }
    return { volume: Math.abs(volume), area, low, high, triangles: t.length / 9 };
  }

  const VERTEX = `attribute vec3 p; attribute vec3 n; uniform mat3 r; uniform vec3 c; uniform float s; uniform float a; varying float l;
    void main() { vec3 q = r * (p - c) * s; vec3 m = r * n; l = 0.35 + 0.65 * abs(dot(m, normalize(vec3(0.3, 0.5, 0.8)))); gl_Position = vec4(q.x / a, q.y, -q.z * 0.05, 1.0); }`;
  const FRAGMENT = `precision mediump float; varying float l; uniform vec3 k; void main() { gl_FragColor = vec4(k * l, 1.0); }`;

  class View {
    constructor(figure, triangles, size) {
      this.figure = figure; this.t = triangles; this.size = size;
      this.canvas = figure.querySelector("canvas"); this.pins = figure.querySelector(".pins");
      this.turn = [-0.5, 0.6]; this.zoom = 1;
      this.centre = size.low.map((v, i) => (v + size.high[i]) / 2);
      this.scale = 1.6 / Math.hypot(...size.high.map((v, i) => v - size.low[i]));
      const gl = (this.gl = this.canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true }));
      if (!gl) throw new Error("webgl");
      const program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind); gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
      }
      gl.linkProgram(program); gl.useProgram(program); this.u = (name) => gl.getUniformLocation(program, name);
      const normals = new Float32Array(triangles.length);
      for (let i = 0; i < triangles.length; i += 9) {
        const t = triangles.subarray(i, i + 9), u = [t[3] - t[0], t[4] - t[1], t[5] - t[2]], v = [t[6] - t[0], t[7] - t[1], t[8] - t[2]];
        const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]], len = Math.hypot(...n) || 1;
        for (let k = 0; k < 9; k++) normals[i + k] = n[k % 3] / len;
      }
      for (const [name, data] of [["p", triangles], ["n", normals]]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
        const at = gl.getAttribLocation(program, name); gl.enableVertexAttribArray(at); gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 0, 0);
      }
      gl.enable(gl.DEPTH_TEST); gl.clearColor(0, 0, 0, 0);
      this.listen(); new ResizeObserver(() => this.draw()).observe(this.canvas); this.draw();
    }
    matrix() {
      const [x, y] = this.turn, cx = Math.cos(x), sx = Math.sin(x), cy = Math.cos(y), sy = Math.sin(y);
      return [[cy, 0, sy], [sx * sy, cx, -sx * cy], [-cx * sy, sx, cx * cy]];
    }
    draw() {
      const gl = this.gl, ratio = devicePixelRatio || 1, w = this.canvas.clientWidth * ratio, h = this.canvas.clientHeight * ratio;
      if (!w || !h) return;
      if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
      gl.viewport(0, 0, w, h); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const m = this.matrix();
      gl.uniformMatrix3fv(this.u("r"), false, [0, 1, 2].flatMap((c) => [m[0][c], m[1][c], m[2][c]]));
      gl.uniform3fv(this.u("c"), this.centre); gl.uniform1f(this.u("s"), this.scale * this.zoom); gl.uniform1f(this.u("a"), w / h); gl.uniform3f(this.u("k"), 0.85, 0.68, 0.25);
      gl.drawArrays(gl.TRIANGLES, 0, this.t.length / 3);
      for (const pin of this.pins.children) {
        const [x, y] = this.toScreen(pin.dataset.place.split(",").map(Number));
        pin.style.left = `${x}px`; pin.style.top = `${y}px`;
      }
    }
    toScreen(place) {
      const m = this.matrix(), d = place.map((v, i) => (v - this.centre[i]) * this.scale * this.zoom), w = this.canvas.clientWidth, h = this.canvas.clientHeight;
      const q = m.map((row) => row[0] * d[0] + row[1] * d[1] + row[2] * d[2]);
      return [(q[0] / (w / h) + 1) * w / 2, (1 - q[1]) * h / 2];
    }
    // The place of the model under a point of the screen: the nearest triangle that the line of sight meets.
    pick(x, y) {
      const w = this.canvas.clientWidth, h = this.canvas.clientHeight, m = this.matrix(), s = this.scale * this.zoom;
      const q = [(2 * x / w - 1) * (w / h), 1 - 2 * y / h, 0];
      const back = (v) => [0, 1, 2].map((c) => m[0][c] * v[0] + m[1][c] * v[1] + m[2][c] * v[2]);
      const o = back(q).map((v, i) => v / s + this.centre[i]), d = back([0, 0, 1]), t = this.t;
      let best = -Infinity;
      for (let i = 0; i < t.length; i += 9) {
        const e1 = [t[i + 3] - t[i], t[i + 4] - t[i + 1], t[i + 5] - t[i + 2]], e2 = [t[i + 6] - t[i], t[i + 7] - t[i + 1], t[i + 8] - t[i + 2]];
        const p = [d[1] * e2[2] - d[2] * e2[1], d[2] * e2[0] - d[0] * e2[2], d[0] * e2[1] - d[1] * e2[0]], det = e1[0] * p[0] + e1[1] * p[1] + e1[2] * p[2];
        if (Math.abs(det) < 1e-12) continue;
        const r = [o[0] - t[i], o[1] - t[i + 1], o[2] - t[i + 2]], u = (r[0] * p[0] + r[1] * p[1] + r[2] * p[2]) / det;
        if (u < 0 || u > 1) continue;
        const k = [r[1] * e1[2] - r[2] * e1[1], r[2] * e1[0] - r[0] * e1[2], r[0] * e1[1] - r[1] * e1[0]], v = (d[0] * k[0] + d[1] * k[1] + d[2] * k[2]) / det;
        if (v < 0 || u + v > 1) continue;
        best = Math.max(best, (e2[0] * k[0] + e2[1] * k[1] + e2[2] * k[2]) / det);
      }
      return best === -Infinity ? null : o.map((v, i) => v + d[i] * best);
    }
    listen() {
      let from = null, moved = false;
      this.canvas.addEventListener("pointerdown", (e) => { from = [e.clientX, e.clientY]; moved = false; this.canvas.setPointerCapture(e.pointerId); });
      this.canvas.addEventListener("pointermove", (e) => {
        if (!from) return;
        const dx = e.clientX - from[0], dy = e.clientY - from[1];
        if (!moved && Math.hypot(dx, dy) < 4) return;
        moved = true; from = [e.clientX, e.clientY]; this.turn[1] += dx * 0.01; this.turn[0] += dy * 0.01; this.draw();
      });
      this.canvas.addEventListener("pointerup", (e) => { from = null; if (!moved) { const box = this.canvas.getBoundingClientRect(); this.choose(this.pick(e.clientX - box.left, e.clientY - box.top)); } });
      this.canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom = Math.min(20, Math.max(0.3, this.zoom * Math.exp(-e.deltaY * 0.001))); this.draw(); }, { passive: false });
      this.canvas.addEventListener("keydown", (e) => {
        const turn = { ArrowLeft: [0, -0.15], ArrowRight: [0, 0.15], ArrowUp: [-0.15, 0], ArrowDown: [0.15, 0] }[e.key];
        if (turn) { this.turn[0] += turn[0]; this.turn[1] += turn[1]; } else if (e.key === "+") this.zoom *= 1.2; else if (e.key === "-") this.zoom /= 1.2; else return;
        e.preventDefault(); this.draw();
      });
    }
    choose(place) {
      const form = document.querySelector(`form[data-pins="${this.figure.dataset.layout}"]`);
      if (!form || !place) return;
      form.place.value = place.map((v) => v.toFixed(3)).join(",");
      this.pins.querySelector(".new")?.remove();
      const pin = document.createElement("span");
      pin.className = "pin new"; pin.textContent = "+"; pin.dataset.place = form.place.value;
      this.pins.append(pin); form.text.focus({ preventScroll: true }); this.draw();
    }
  }

  async function show(figure) {
    const says = figure.querySelector(".says");
    try {
      const answer = await fetch(figure.dataset.model);
      if (!answer.ok) throw new Error(`${answer.status}`);
      if (+answer.headers.get("content-length") > MOST) throw new Error("size");
      const buffer = await answer.arrayBuffer(), name = figure.dataset.name.toLowerCase();
      const triangles = name.endsWith(".obj") ? readObj(buffer) : name.endsWith(".3mf") ? new Float32Array() : readStl(buffer);
      if (!triangles.length || triangles.length % 9) throw new Error("format");
      const size = measure(triangles), put = (what, text) => { figure.querySelector(`[data-fact=${what}]`).textContent = text; };
      put("box", size.high.map((v, i) => num(v - size.low[i])).join(" × ") + " mm");
      put("volume", `${num(size.volume)} mm³`); put("area", `${num(size.area)} mm²`); put("triangles", num(size.triangles, 0));
      new View(figure, triangles, size);
      says.hidden = true;
    } catch (error) {
      says.textContent = says.dataset.cannot;
    }
  }
  for (const figure of document.querySelectorAll("figure[data-model]")) show(figure);
  // A template fills the remark.
  for (const choice of document.querySelectorAll("select[data-fills]")) choice.addEventListener("change", () => {
    if (choice.value) choice.form.text.value = choice.value;
  });
})();
