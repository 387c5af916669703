// Sends a model straight to the storage: by one PUT when it is small, by parts when it is not. What is there is not sent
// again, so that a poor line, a closed tab or a restarted browser only cost the part that was under way.
const SLICE = 4 * 1024 * 1024, BY_PARTS_FROM = 8 * 1024 * 1024, LONGEST_PAUSE_MS = 15_000;

export class Stopped extends Error {}

export async function digestOf(file, sha256, tell, stop) {
  const hash = sha256.create();
  for (let at = 0; at < file.size; at += SLICE) {
    if (stop.aborted) throw new Stopped();
    hash.update(new Uint8Array(await file.slice(at, at + SLICE).arrayBuffer()));
    tell(Math.min(1, (at + SLICE) / file.size));
    await new Promise((go) => setTimeout(go));  // the page stays alive
  }
  return [...hash.digest()].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// XMLHttpRequest, for fetch tells nothing of how much of a body was sent.
function put(link, body, tell, stop) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(link.method, link.url);
    for (const [name, value] of Object.entries(link.headers))
      if (name.toLowerCase() !== "content-length") request.setRequestHeader(name, value);  // the browser's own
    const abort = () => request.abort();
    stop.addEventListener("abort", abort, { once: true });
    request.upload.onprogress = (event) => tell(event.loaded);
    request.onload = () => (request.status < 300 ? done() : fail(Object.assign(new Error("storage"), { status: request.status })));
    request.onerror = () => fail(new Error("line"));
    request.onabort = () => fail(new Stopped());
    request.onloadend = () => stop.removeEventListener("abort", abort);
    request.send(body);
  });
}

// `api(method, path, body)` gives JSON or throws; `tell({ sent, poor })` is told of bytes and of a poor line.
export async function upload(file, sha256, api, tell, stop) {
  let pause = 500;
  for (;;) {
    try {
      const model = await api("POST", "/v1/models", { name: file.name.slice(0, 200), size_bytes: file.size, sha256, multipart: file.size > BY_PARTS_FROM });
      if (model.upload) {
        await put(model.upload, file, (sent) => tell({ sent }), stop);
        return;
      }
      if (!model.multipart) return;  // it is there
      let state = model.multipart;
      for (;;) {
        let whole = Math.min(file.size, state.present.length * state.part_size_bytes);
        tell({ sent: whole });
        if (!state.links.length) break;
        for (const part of state.links) {
          const from = (part.number - 1) * state.part_size_bytes;
          await put(part.upload, file.slice(from, from + part.size_bytes), (sent) => tell({ sent: whole + sent }), stop);
          whole += part.size_bytes;
          pause = 500;
        }
        state = await api("GET", `/v1/models/${sha256}/upload`);
      }
      await api("POST", `/v1/models/${sha256}/upload/complete`);
      return;
    } catch (trouble) {
      if (trouble instanceof Stopped || stop.aborted) throw new Stopped();
      // What the shop itself refuses will not get better by asking again; a link that ran out will.
      if (trouble.problem && trouble.status < 500 && trouble.status !== 429) throw trouble;
      tell({ poor: true });
      await new Promise((go) => setTimeout(go, pause));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }
}
