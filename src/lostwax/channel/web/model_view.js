// Shows a model in 3D, and in red where its surface is not closed: edges that belong to one facet, or to more than two.
const MOST_FACETS_LOOKED_AT = 400_000;

export async function show(canvas, three, buffer, name, colour) {
  const kind = name.toLowerCase().split(".").pop();
  let object;
  if (kind === "obj") object = new three.OBJLoader().parse(new TextDecoder().decode(buffer));
  else if (kind === "3mf") object = new three.ThreeMFLoader().parse(buffer);
  else object = new three.Mesh(new three.STLLoader().parse(buffer));
  const material = new three.MeshStandardMaterial({ color: colour, metalness: 0.55, roughness: 0.35 });
  const scene = new three.Scene();
  let open = [], facets = 0;
  object.updateMatrixWorld(true);
  object.traverse((part) => {
    if (!part.isMesh) return;
    part.geometry.computeVertexNormals();
    part.material = material;
    facets += (part.geometry.getIndex() ?? part.geometry.getAttribute("position")).count / 3;
    open = open.concat(openEdges(part));
  });
  if (!facets) throw new Error("nothing to show");
  scene.add(object);
  if (open.length) {
    const lines = new three.BufferGeometry();
    lines.setAttribute("position", new three.Float32BufferAttribute(open, 3));
    const red = new three.LineSegments(lines, new three.LineBasicMaterial({ color: 0xd4001f, depthTest: false }));
    red.renderOrder = 1;
    scene.add(red);
  }
  const box = new three.Box3().setFromObject(object), middle = box.getCenter(new three.Vector3()), size = box.getSize(new three.Vector3());
  const far = Math.max(size.x, size.y, size.z) || 1;
  scene.add(new three.HemisphereLight(0xffffff, 0x555555, 2.2));
  const sun = new three.DirectionalLight(0xffffff, 2.5);
  sun.position.set(1, 2, 3);
  scene.add(sun);
  const camera = new three.PerspectiveCamera(40, 1, far / 100, far * 20);
  camera.position.set(middle.x + far * 0.9, middle.y + far * 0.9, middle.z + far * 1.5);
  const renderer = new three.WebGLRenderer({ canvas, antialias: true, alpha: true });
  const controls = new three.OrbitControls(camera, canvas);
  controls.target.copy(middle);
  const draw = () => {
    const { clientWidth: w, clientHeight: h } = canvas;
    renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    renderer.setSize(w, h, false);
    camera.aspect = w / Math.max(1, h);
    camera.updateProjectionMatrix();
    renderer.render(scene, camera);
  };
  controls.addEventListener("change", draw);
  const turn = (event) => {
    const by = { ArrowLeft: -0.2, ArrowRight: 0.2 }[event.key], up = { ArrowUp: 0.2, ArrowDown: -0.2 }[event.key];
    if (by === undefined && up === undefined) return;
    event.preventDefault();
    const arm = camera.position.clone().sub(middle), flat = Math.hypot(arm.x, arm.z);
    const around = Math.atan2(arm.x, arm.z) + (by || 0), over = Math.max(-1.4, Math.min(1.4, Math.atan2(arm.y, flat) + (up || 0))), length = arm.length();
    camera.position.set(middle.x + length * Math.cos(over) * Math.sin(around), middle.y + length * Math.sin(over), middle.z + length * Math.cos(over) * Math.cos(around));
    controls.update();
    draw();
  };
  canvas.addEventListener("keydown", turn);
  const resized = new ResizeObserver(draw);
  resized.observe(canvas);
  controls.update();
  draw();
  return {
    size: [size.x, size.y, size.z].map((mm) => mm.toFixed(1)).join(" × "),
    open: open.length / 6,
    paint(other) { material.color.set(other); draw(); },
    end() { canvas.removeEventListener("keydown", turn); resized.disconnect(); controls.dispose(); renderer.dispose(); },
  };
}

function openEdges(mesh) {
  const at = mesh.geometry.getAttribute("position"), index = mesh.geometry.getIndex();
  const corners = index ? index.count : at.count;
  if (corners / 3 > MOST_FACETS_LOOKED_AT) return [];
  const ids = new Map(), places = [], seen = new Map();
  const idOf = (n) => {
    const i = index ? index.getX(n) : n, key = `${at.getX(i).toFixed(5)},${at.getY(i).toFixed(5)},${at.getZ(i).toFixed(5)}`;
    let id = ids.get(key);
    if (id === undefined) { ids.set(key, (id = places.length)); places.push([at.getX(i), at.getY(i), at.getZ(i)]); }
    return id;
  };
  for (let n = 0; n + 2 < corners; n += 3) {
    const facet = [idOf(n), idOf(n + 1), idOf(n + 2)];
    for (let k = 0; k < 3; k++) {
      const a = facet[k], b = facet[(k + 1) % 3];
      if (a === b) continue;
      const key = a < b ? a * 4294967296 + b : b * 4294967296 + a;
      seen.set(key, (seen.get(key) || 0) + 1);
    }
  }
  const found = [];
  for (const [key, times] of seen) if (times !== 2) found.push(...places[Math.floor(key / 4294967296)], ...places[key % 4294967296]);
  return found;
}
