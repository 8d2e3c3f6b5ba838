// Shows one scan at a time: its picture and, if NiiVue is in the page, its head with the landmarks.
const $ = (id) => document.getElementById(id);
const STEP = 16; // Between the colours of two groups on NiiVue's scale of 256.
const RADIUS_MM = 2;

let viewer; // A promise of [NiiVue's module, the view].
let shown; // The scan on show.

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

async function startViewer() {
  const source = await (await unpacked($("niivue").textContent)).text();
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const niivue = await import(url);
  const view = new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    meshThicknessOn2D: 4,
    meshXRay: 0.4,
    multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    showLegend: false,
    dragAndDropEnabled: false,
    loadingText: "",
    show3Dcrosshair: true,
    crosshairColor: [0.6, 0.7, 0.8, 0.5],
    crosshairWidth: 0.3,
  });
  await view.attachToCanvas($("canvas"));
  view.setSliceType(view.sliceTypeMultiplanar);
  const scale = { R: [], G: [], B: [], A: [], I: [] };
  const colors = JSON.parse($("colors").textContent);
  colors.forEach((color, group) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    for (const index of [group * STEP, group * STEP + STEP - 1]) {
      scale.R.push(r); scale.G.push(g); scale.B.push(b); scale.A.push(255); scale.I.push(index);
    }
  });
  scale.I[scale.I.length - 1] = 255;
  view.addColormap("landmarks", scale);
  return [niivue, view];
}

function connectome(nodes) {
  return {
    name: "landmarks", nodeColormap: "landmarks", nodeMinColor: 0, nodeMaxColor: 255,
    nodeScale: RADIUS_MM, edgeColormap: "landmarks", edgeMin: 0, edgeMax: 1, edgeScale: 0,
    showLegend: false, legendLineThickness: 0, edges: [],
    nodes: nodes.map((node) => ({
      name: node.label, x: node.point[0], y: node.point[1], z: node.point[2],
      colorValue: node.group * STEP, sizeValue: 1,
    })),
  };
}

function jump(view, point) {
  view.scene.crosshairPos = view.mm2frac(point);
  view.drawScene();
}

async function showHead(section) {
  const data = section.querySelector("script.head");
  $("viewer").hidden = !data;
  document.body.dataset.viewer = data ? "loading" : "none";
  if (!data) return;
  const { image, nodes } = JSON.parse(data.textContent);
  const [niivue, view] = await (viewer ??= startViewer());
  const volume = await niivue.NVImage.loadFromBase64({
    base64: image, name: `${section.id}.nii.gz`, colorbarVisible: false,
    cal_min: 0, cal_max: 255,
  });
  if (shown !== section) return; // Another one was chosen meanwhile.
  view.volumes = [];
  view.addVolume(volume);
  view.loadConnectome(connectome(nodes));
  const first = section.querySelector("button.point")?.dataset.label;
  const point = nodes.find((node) => node.label === first)?.point;
  if (point) jump(view, point);
  document.body.dataset.viewer = "ready";
}

function show(name) {
  shown = $(`scan-${name}`);
  for (const section of document.querySelectorAll("section.detail")) section.hidden = section !== shown;
  for (const button of document.querySelectorAll("button.case")) {
    button.setAttribute("aria-current", button.dataset.case === name);
  }
  if (!$("viewer")) return;
  showHead(shown).catch((error) => {
    // There are still the pictures.
    $("viewer").hidden = true;
    $("unable").hidden = false;
    document.body.dataset.viewer = `failed: ${error.message}`;
  });
}

for (const button of document.querySelectorAll("button.case")) {
  button.addEventListener("click", () => show(button.dataset.case));
}
for (const button of document.querySelectorAll("button.point")) {
  button.addEventListener("click", async () => {
    const data = shown.querySelector("script.head");
    if (!data || !viewer) return;
    const node = JSON.parse(data.textContent).nodes.find((n) => n.label === button.dataset.label);
    jump((await viewer)[1], node.point);
  });
}
// cohort.html#sub-01_T1w opens this scan.
const named = document.querySelector(`button.case[data-case="${CSS.escape(location.hash.slice(1))}"]`);
const start = named ?? document.querySelector("button.case[data-shown]") ?? document.querySelector("button.case");
if (start) show(start.dataset.case);
