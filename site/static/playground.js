/* The pieces of the web edition that a reader moves: lock a network, in the page, with a picture and a key of one's own.

<div class="playground" data-piece="..."> holds a still; this script puts the piece in its place. What it computes with
is made when the site is built (site/playground.py) and lies in the folder `playground` beside this script. */
"use strict";

(() => {
  const FOLDER = new URL("playground/", document.currentScript.src).href;
  const SIDE = 32, SIZE = 4, N = 3 * SIZE * SIZE, SHOWN = 12;
  const GROUND = [0.35, 0.4, 0.45], INK = [0.75, 0.8, 0.85], BRUSH = 1.2; // as light as the digits that the network knows
  const CASES = ["plain", "correct", "turned", "none"];
  /* What a piece shows. turns: what the slider does, from the correct key to a wrong one, or from no cipher to the
  correct key; opens: where it stands at first. */
  const PIECES = {
    lock: { turns: "wrong", opens: N, pictures: ["encrypted", "turned"], filters: true, cases: CASES, photos: true },
    encrypt: { turns: "wrong", opens: 0, pictures: ["encrypted", "decrypted"], filters: false, cases: [], photos: true },
    inside: { turns: "correct", opens: 0, pictures: ["encrypted"], filters: true, cases: ["plain", "correct", "none"], photos: false },
    turn: { turns: "wrong", opens: 0, pictures: ["turned"], filters: false, cases: CASES, photos: false },
  };
  const PICTURES = {
    encrypted: "encrypted with the correct key",
    turned: "encrypted with the turned key",
    decrypted: "decrypted with the turned key",
  };
  const HEADS = {
    plain: ["plain", "plain picture, plain network"],
    correct: ["correct key", "encrypted picture, encrypted network"],
    soFar: ["encrypted", "picture and network, so far"],
    turned: ["turned key", "encrypted with the turned key"],
    none: ["no key", "plain picture, encrypted network"],
  };

  const loaded = {};
  const load = (name) =>
    (loaded[name] ||= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `${FOLDER}${name}.js`;
      script.onload = () => {
        const data = cmxData[name];
        if (!data.weights) return done(data);
        const pixels = cmx.values(cmx.fromBase64(data.images));
        const images = data.labels.map((_, i) => pixels.subarray(3 * SIDE * SIDE * i, 3 * SIDE * SIDE * (i + 1)));
        const model = cmx.convmixer(cmx.safetensors(cmx.fromBase64(data.weights)), data.mean, data.std);
        const strength = model.filters.map((filter) => filter.reduce((sum, w) => sum + w * w, 0));
        const order = [...strength.keys()].sort((a, b) => strength[b] - strength[a]).slice(0, SHOWN);
        done({ ...data, name, images, model, strongest: order, first: data.first || 0 });
      };
      script.onerror = () => failed(new Error(`${script.src} could not be read.`));
      document.head.append(script);
    }));

  const percent = (share) => `${(100 * share).toFixed(share > 0.0995 && share < 0.9995 ? 0 : 1)} %`;
  const blank = () => Float64Array.from({ length: 3 * SIDE * SIDE }, (_, i) => GROUND[Math.floor(i / (SIDE * SIDE))]);

  function paint(canvas, image) {
    const pixels = new ImageData(canvas.width, canvas.height), m = canvas.width * canvas.height;
    for (let i = 0; i < m; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round(255 * image[c * m + i]); // cut to 0..255 by itself
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  /* Filters as tiles in a row, each pixel in the colour of its three weights. */
  function paintFilters(canvas, filters, numbers, tops) {
    const context = canvas.getContext("2d"), m = SIZE * SIZE;
    numbers.forEach((number, k) => {
      const tile = new ImageData(SIZE, SIZE);
      for (let i = 0; i < m; i++) {
        for (let c = 0; c < 3; c++) tile.data[4 * i + c] = 127.5 + (127.5 * filters[number][c * m + i]) / tops[k];
        tile.data[4 * i + 3] = 255;
      }
      context.putImageData(tile, k * (SIZE + 1), 0);
    });
  }

  async function fromFile(file) {
    const picture = await createImageBitmap(file).catch(() => {
      throw new Error(`${file.name} is no picture that can be read: choose a PNG or JPEG file.`);
    });
    const canvas = document.createElement("canvas"), side = Math.min(picture.width, picture.height);
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
    const { data } = context.getImageData(0, 0, SIDE, SIDE), m = SIDE * SIDE;
    return Float64Array.from({ length: 3 * m }, (_, i) => data[4 * (i % m) + Math.floor(i / m)] / 255);
  }

  function mount(root) {
    const piece = PIECES[root.dataset.piece];
    const turnsWrong = piece.turns === "wrong";
    const titleOf = (name) => (turnsWrong ? PICTURES[name] : "encrypted so far");
    const head = ([title, words]) => `<th scope="col">${title}<small>${words}</small></th>`;
    root.innerHTML = `
      ${piece.photos ? `<div class="choices" role="group" aria-label="Network">
        <button type="button" data-network="digits" aria-pressed="true">Digits</button>
        <button type="button" data-network="photos" aria-pressed="false">Photographs</button></div>` : ""}
      <div class="choices">
        <label>Cipher <select data-name="steps"><option>shuffle</option><option>flip</option>
          <option selected>shuffle+flip</option><option>orthogonal</option></select></label>
        <label>Correct key <input data-name="key" type="number" min="0" max="9007199254740991" value="0"></label>
        ${turnsWrong ? `<label>Wrong key <input data-name="other" type="number" min="0" max="9007199254740991" value="1"></label>` : ""}
        <label class="file">Open a key file<input data-name="keyfile" type="file"></label>
      </div>
      <div class="pictures">
        <figure class="mine"><div class="paper"><canvas width="32" height="32" tabindex="0" role="application"></canvas>
          <span class="hint" hidden>draw a digit of this size</span><span class="cursor" hidden></span></div>
          <figcaption>your picture</figcaption></figure>
        ${piece.pictures.map((name) => `<figure><canvas width="32" height="32" role="img" data-picture="${name}" aria-label="${titleOf(name)}"></canvas>
          <figcaption>${titleOf(name)}</figcaption></figure>`).join("")}
      </div>
      <div class="choices">
        <button type="button" data-name="draw">Draw one</button>
        <button type="button" data-name="next">Next digit</button>
        <label class="file">Your own picture<input data-name="file" type="file" accept="image/*"></label>
      </div>
      <label class="slider">${turnsWrong ? "Entries of the correct key turned into the wrong one's" : "Entries encrypted"}:
        <output></output><input data-name="turned" type="range" min="0" max="${N}" value="${piece.opens}"></label>
      ${piece.filters ? `<div class="filters">${["plain", "encrypted"].map((name) => `<figure>
          <canvas width="${SHOWN * (SIZE + 1) - 1}" height="${SIZE}" role="img" data-filters="${name}"
            aria-label="${SHOWN} filters of the ${name} network"></canvas>
          <figcaption>${SHOWN} filters of the ${name} network's first layer</figcaption></figure>`).join("")}</div>` : ""}
      <p class="said" role="status"></p>
      ${piece.cases.length ? `<table><thead><tr><td class="names"></td>${piece.cases.map((name) => head(!turnsWrong && name === "correct" ? HEADS.soFar : HEADS[name])).join("")}</tr></thead>
        <tbody></tbody><tfoot></tfoot></table>` : ""}`;
    const find = (name) => root.querySelector(`[data-name="${name}"]`);
    const paper = root.querySelector(".paper canvas"), cursor = root.querySelector(".cursor");
    const state = { image: null, label: null, at: 0, drawn: false, keyFile: null };
    let network, accuracies = 0, known = {};

    const memory = {};
    const cipher = (secret, steps) => (memory[cmx.hex(secret) + steps] ||= cmx.cipher(secret, SIZE, steps));
    const number_ = (name) => Math.max(0, Math.floor(Number(find(name).value)) || 0);
    const rightSecret = () => (state.keyFile ? state.keyFile.secret : cmx.experimentKey(number_("key")));

    /* Everything that follows from the state. A turn of the slider alone leaves three of the four cases as they were. */
    function update(only) {
      if (!network) return;
      const kept = only === "turn" && turnsWrong ? known : {};
      const steps = find("steps").value, turned = Number(find("turned").value);
      let right = cipher(rightSecret(), steps), tried = right;
      if (turnsWrong) tried = cmx.partway(right, cipher(cmx.experimentKey(number_("other")), steps), turned);
      else right = tried = cmx.partway(cmx.nothing(SIZE), right, turned);
      const { model, strongest } = network, locked = cmx.encryptModel(model, right), { image } = state;
      const encrypted = cmx.encrypt(image, right), badly = cmx.encrypt(image, tried);
      paint(paper, image);
      const shown = { encrypted, turned: badly, decrypted: turnsWrong && cmx.decrypt(encrypted, tried) };
      for (const canvas of root.querySelectorAll("[data-picture]")) paint(canvas, shown[canvas.dataset.picture]);
      for (const canvas of root.querySelectorAll("[data-filters]")) {
        const tops = strongest.map((k) => Math.max(...model.filters[k].map(Math.abs)));
        paintFilters(canvas, (canvas.dataset.filters === "plain" ? model : locked).filters, strongest, tops);
      }
      const wrong = right.matrix.filter((row, i) => right.offset[i] !== tried.offset[i] || row.some((v, j) => v !== tried.matrix[i][j])).length;
      root.querySelector(".slider output").value = turnsWrong ? `${turned} of ${N}, ${wrong} wrong` : `${turned} of ${N}`;
      const inputs = { plain: [model, image], correct: [locked, encrypted], turned: [locked, badly], none: [locked, image] };
      const values = Object.fromEntries(piece.cases.map((name) => [name, (name !== "turned" && kept[name]) || cmx.logits(...inputs[name])]));
      known = values;
      say(values, image, shown.decrypted);
      if (piece.cases.length) tabulate(values);
      if (piece.cases.length && turnsWrong) follow(model, locked, tried, steps);
    }

    function say(values, image, decrypted) {
      const said = root.querySelector(".said");
      const read = (name) => network.classes[values[name].indexOf(Math.max(...values[name]))];
      if (!turnsWrong) {
        const gap = (name) => Math.max(...values.plain.map((value, i) => Math.abs(value - values[name][i])));
        said.textContent = `Largest difference of a logit from the plain network's: ${gap("correct").toFixed(9)} with the encrypted picture, ${gap("none").toFixed(2)} with the plain one.`;
      } else if (!piece.cases.length) {
        const differ = image.filter((value, i) => Math.round(255 * value) !== Math.min(255, Math.max(0, Math.round(255 * decrypted[i])))).length;
        said.textContent = `Of the ${image.length.toLocaleString("en")} bytes, ${differ.toLocaleString("en")} come back otherwise.`;
      } else {
        const same = read("correct") === read("plain") ? "so does" : `${read("correct")} reads`;
        said.innerHTML = `The plain network reads <b>${read("plain")}</b>; ${same} the encrypted one with the correct key. With the turned key it reads <b>${read("turned")}</b>, with no key <b>${read("none")}</b>.`;
      }
    }

    function tabulate(values) {
      const chances = piece.cases.map((name) => cmx.softmax(values[name]));
      const plain = chances[0].indexOf(Math.max(...chances[0]));
      root.querySelector("tbody").innerHTML = network.classes.map((name, k) => `<tr><th scope="row">${name}</th>${chances.map((all) => {
        const top = all[k] === Math.max(...all) ? (k === plain ? "same" : "other") : "";
        return `<td><span class="bar ${top}" style="width: ${(100 * all[k]).toFixed(1)}%"></span><span class="number">${percent(all[k])}</span></td>`;
      }).join("")}</tr>`).join("");
    }

    /* The accuracies, in pieces of a few milliseconds, so that the page stays quick; a later move ends an earlier count. */
    function follow(model, locked, tried, steps) {
      const foot = root.querySelector("tfoot"), turn = ++accuracies;
      const row = (words, cells) => (foot.innerHTML = `<tr><th scope="row">${words}</th>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`);
      if (network.recorded) {
        row("right, of 10,000 recorded", network.recorded[steps].map((value, i) => `${value.toFixed(1)} %${i === 2 ? " for a wrong key" : ""}`));
        return;
      }
      const name = (what) => `${what}/${steps}/${cmx.hex(rightSecret())}`, count = network.images.length;
      const jobs = [
        { key: "plain", of: model },
        { key: name("correct"), of: () => cmx.decryptModel(locked, cipher(rightSecret(), steps)) },
        { key: name(`turned ${find("turned").value} ${number_("other")}`), of: () => cmx.decryptModel(locked, tried) },
        { key: name("none"), of: locked },
      ];
      const show = (last) => row(`right, of ${count} test digits`, jobs.map(({ key }) => (key in memory ? percent(memory[key]) : last === key ? "…" : "")));
      const order = [2, 0, 1, 3].map((i) => jobs[i]).filter(({ key }) => !(key in memory));
      let hits = 0, at = 0, now = null;
      const work = () => {
        if (turn !== accuracies) return;
        if (!order.length) return;
        const until = performance.now() + 12;
        now ||= typeof order[0].of === "function" ? order[0].of() : order[0].of;
        while (at < count && performance.now() < until) {
          const found = cmx.logits(now, network.images[at]);
          hits += found.indexOf(Math.max(...found)) === network.labels[at++];
        }
        if (at === count) {
          memory[order.shift().key] = hits / count;
          [hits, at, now] = [0, 0, null];
          show(order[0]?.key);
        }
        setTimeout(work);
      };
      show(order[0]?.key);
      setTimeout(work);
    }

    // -- pictures ------------------------------------------------------------------------------------------------------

    function take(image, label, drawn = false) {
      Object.assign(state, { image, label, drawn });
      root.querySelector(".hint").hidden = !(drawn && label === "blank");
      update();
    }

    function nextOf(at) {
      state.at = at % network.images.length;
      take(network.images[state.at], network.labels[state.at]);
    }

    async function choose(name) {
      try {
        network = await load(name);
      } catch (error) {
        root.querySelector(".said").textContent = error.message;
        return;
      }
      for (const button of root.querySelectorAll("[data-network]")) button.setAttribute("aria-pressed", button.dataset.network === name);
      const digits = name === "digits";
      find("draw").hidden = find("next").hidden = !digits;
      paper.setAttribute("aria-label", digits ? "Your picture. To draw with the keyboard: arrows move, space lowers and lifts the pen." : "Your picture");
      nextOf(network.first);
      root.dataset.ready = name;
    }

    /* A stroke of the brush from one place to another, in pixels of the picture. */
    function stroke([x0, y0], [x1, y1]) {
      const length = (x1 - x0) ** 2 + (y1 - y0) ** 2, m = SIDE * SIDE;
      for (let y = 0; y < SIDE; y++)
        for (let x = 0; x < SIDE; x++) {
          const t = length ? Math.min(1, Math.max(0, ((x + 0.5 - x0) * (x1 - x0) + (y + 0.5 - y0) * (y1 - y0)) / length)) : 0;
          const ink = Math.min(1, Math.max(0, BRUSH + 0.5 - Math.hypot(x + 0.5 - x0 - t * (x1 - x0), y + 0.5 - y0 - t * (y1 - y0))));
          for (let c = 0; c < 3; c++) {
            const at = c * m + y * SIDE + x, value = GROUND[c] + ink * (INK[c] - GROUND[c]);
            if (value > state.image[at]) state.image[at] = value;
          }
        }
    }

    const begin = () => take(blank(), "blank", true);
    const strokeTo = (place) => {
      if (!state.drawn) begin();
      stroke(pen || place, place);
      pen = place;
      take(state.image, null, true);
    };
    let pen = null, waiting = false;
    const placeOf = (event) => {
      const box = paper.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
    };
    paper.addEventListener("pointerdown", (event) => {
      if (network?.name !== "digits") return;
      paper.setPointerCapture(event.pointerId);
      pen = null;
      strokeTo(placeOf(event));
    });
    paper.addEventListener("pointermove", (event) => {
      if (!pen || !paper.hasPointerCapture(event.pointerId)) return;
      stroke(pen, (pen = placeOf(event)));
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => ((waiting = false), take(state.image, null, true)));
    });
    for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => (pen = null));

    const hand = { place: [16, 8], down: false };
    const showHand = () => {
      cursor.hidden = false;
      cursor.classList.toggle("down", hand.down);
      cursor.style.left = `${(100 * hand.place[0]) / SIDE}%`;
      cursor.style.top = `${(100 * hand.place[1]) / SIDE}%`;
    };
    paper.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (network?.name !== "digits" || !(step || event.key === " ")) return;
      event.preventDefault();
      if (event.key === " ") hand.down = !hand.down;
      if (step) hand.place = hand.place.map((value, i) => Math.min(SIDE - 1, Math.max(1, value + step[i])));
      if (hand.down) {
        pen = step && state.drawn ? hand.place.map((value, i) => value - step[i]) : null;
        strokeTo([...hand.place]);
        pen = null;
      }
      showHand();
    });
    paper.addEventListener("blur", () => ((cursor.hidden = true), (hand.down = false)));

    async function own(file) {
      try {
        take(await fromFile(file), null);
      } catch (error) {
        root.querySelector(".said").textContent = error.message;
      }
    }
    find("file").addEventListener("change", (event) => {
      if (event.target.files[0]) own(event.target.files[0]);
      event.target.value = "";
    });
    root.addEventListener("dragover", (event) => event.preventDefault());
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) own(event.dataTransfer.files[0]);
    });

    // -- controls ------------------------------------------------------------------------------------------------------

    find("draw").addEventListener("click", () => (begin(), paper.focus()));
    find("next").addEventListener("click", () => nextOf(state.drawn || state.label === null ? state.at : state.at + 1));
    for (const name of ["steps", "other"]) find(name)?.addEventListener("input", () => update());
    find("turned").addEventListener("input", () => update("turn"));
    find("key").addEventListener("input", () => ((state.keyFile = null), update()));
    find("keyfile").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      try {
        state.keyFile = cmx.keyFromFile(await file.text());
        find("key").value = "";
        update();
      } catch (error) {
        root.querySelector(".said").textContent = error.message;
      }
    });
    for (const button of root.querySelectorAll("[data-network]")) button.addEventListener("click", () => choose(button.dataset.network));
    return choose("digits");
  }

  /* Chapter 7's attack: keys that were estimated from encrypted tiles of a photograph, tried on all of it. */
  async function mountBroken(root) {
    const { image, steps } = await load("broken"), plain = cmx.values(cmx.fromBase64(image));
    const side = Math.sqrt(plain.length / 3), encrypted = cmx.encrypt(plain, cmx.cipher(cmx.experimentKey(0), SIZE, "shuffle+flip"));
    const titles = { plain: "the picture", encrypted: "encrypted", recovered: "recovered" };
    root.innerHTML = `<div class="pictures">${Object.entries(titles).map(([name, title]) => `<figure>
        <canvas width="${side}" height="${side}" role="img" data-picture="${name}" aria-label="${title}"></canvas>
        <figcaption>${title}</figcaption></figure>`).join("")}</div>
      <label class="slider">Encrypted tiles observed: <output></output>
        <input data-name="turned" type="range" min="0" max="${steps.length - 1}" value="0"></label><p class="said" role="status"></p>`;
    const [first, second, third] = root.querySelectorAll("canvas"), slider = root.querySelector("input");
    const update = () => {
      const { count, permutation, flipped, share } = steps[slider.value];
      paint(third, cmx.decrypt(encrypted, cmx.fromEntries(permutation, flipped, SIZE)));
      slider.setAttribute("aria-valuetext", (root.querySelector("output").value = `${count} of ${steps.at(-1).count}`));
      root.querySelector(".said").textContent = `Of the key's ${N} entries, ${Math.round(N * share)} were found.`;
    };
    paint(first, plain);
    paint(second, encrypted);
    slider.addEventListener("input", update);
    update();
    root.dataset.ready = "broken";
  }

  for (const root of document.querySelectorAll(".playground:not([data-mounted])")) {
    const still = root.innerHTML;
    root.dataset.mounted = "";
    const ready = root.dataset.piece === "break" ? mountBroken(root) : load("digits").then(() => mount(root));
    ready.catch(() => (root.innerHTML = still));
  }
})();
