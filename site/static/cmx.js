/* The arithmetic of cmxlib that the pages need: keys, patch ciphers, encrypted models, ConvMixer.

An image is a Float64Array of 3 * side * side values in [0, 1], in channel, row, column order; a block of it is read in
the same order, as in cmxlib/lock/patch.py. A model takes such images: normalising is folded into its first layer, and
each BatchNorm into a factor and an offset. tests/book/test_playground.py holds all of it against Python. */
"use strict";

globalThis.cmx ??= (() => {
  const utf8 = (text) => new TextEncoder().encode(text);
  const joined = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

  // -- SHA-256 (FIPS 180-4), HKDF (RFC 5869), ChaCha20 (RFC 8439): a page opened as a file has no WebCrypto ----------

  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => ((x % 1) * 2 ** 32) >>> 0;
  const ROUNDS = primes.map((p) => fraction(Math.cbrt(p)));
  const START = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));

  function sha256(message) {
    const padded = new Uint8Array(((message.length + 72) >> 6) << 6);
    padded.set(message);
    padded[message.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 4, 8 * message.length);
    const state = [...START], w = new Int32Array(64);
    const turn = (x, n) => (x >>> n) | (x << (32 - n));
    for (let at = 0; at < padded.length; at += 64) {
      for (let i = 0; i < 64; i++) {
        if (i < 16) w[i] = view.getInt32(at + 4 * i);
        else {
          const a = w[i - 15], b = w[i - 2];
          w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10));
        }
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let i = 0; i < 64; i++) {
        const s = (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + h + ROUNDS[i] + w[i];
        const t = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + s) | 0, c, b, a, (s + t) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] = (state[i] + value) | 0));
    }
    const digest = new DataView(new ArrayBuffer(32));
    state.forEach((value, i) => digest.setInt32(4 * i, value));
    return new Uint8Array(digest.buffer);
  }

  function hmac(key, message) {
    const pad = (byte) => Uint8Array.from({ length: 64 }, (_, i) => (key[i] || 0) ^ byte);
    return sha256(joined(pad(0x5c), sha256(joined(pad(0x36), message))));
  }

  const derive = (secret, info) => hmac(hmac(new Uint8Array(32), secret), joined(utf8(`cmxlib/1/${info}`), [1]));

  function chacha20(key, length) {
    const words = new Uint32Array(16), out = new Uint32Array(16 * Math.ceil(length / 64));
    words.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
    const view = new DataView(key.buffer, key.byteOffset);
    for (let i = 0; i < 8; i++) words[4 + i] = view.getUint32(4 * i, true);
    const turn = (x, n) => (x << n) | (x >>> (32 - n));
    for (let at = 0; at < out.length; at += 16, words[12]++) {
      const x = Uint32Array.from(words);
      const quarter = (a, b, c, d) => {
        x[a] += x[b]; x[d] = turn(x[d] ^ x[a], 16);
        x[c] += x[d]; x[b] = turn(x[b] ^ x[c], 12);
        x[a] += x[b]; x[d] = turn(x[d] ^ x[a], 8);
        x[c] += x[d]; x[b] = turn(x[b] ^ x[c], 7);
      };
      for (let round = 0; round < 10; round++) {
        for (let i = 0; i < 4; i++) quarter(i, 4 + i, 8 + i, 12 + i);
        for (let i = 0; i < 4; i++) quarter(i, 4 + ((i + 1) % 4), 8 + ((i + 2) % 4), 12 + ((i + 3) % 4));
      }
      x.forEach((value, i) => (out[at + i] = value + words[i]));
    }
    const bytes = new DataView(new ArrayBuffer(4 * out.length));
    out.forEach((value, i) => bytes.setUint32(4 * i, value, true));
    return new Uint8Array(bytes.buffer, 0, length);
  }

  // -- keys: a secret is 32 bytes, as in cmxlib/lock/keys.py and keyfile.py ------------------------------------------

  const stream = (secret, length, purpose) => chacha20(derive(secret, `stream/${purpose}`), length);

  function words(secret, count, purpose) {
    const bytes = stream(secret, 8 * count, purpose);
    const view = new DataView(bytes.buffer);
    return Array.from({ length: count }, (_, i) => view.getBigUint64(8 * i, true));
  }

  const experimentKey = (number) => sha256(utf8(`cmxlib experiment key ${number}`));

  /* The secret and origin in a key file of version 2; an Error, with a sentence, where it is none or is damaged. */
  function keyFromFile(text) {
    const form = /^cmxlib secret key, version 2\norigin: ([a-z0-9 ]{1,80})\nsecret: ([0-9a-f]{64})\ncheck: ([0-9a-f]{16})\n$/;
    const found = form.exec(text.replaceAll("\r\n", "\n"));
    if (!found) throw new Error("This is not a complete cmxlib key file of version 2.");
    const secret = Uint8Array.from(found[2].match(/../g), (byte) => parseInt(byte, 16));
    const check = sha256(joined(utf8(`cmxlib key check 2 ${found[1]} `), secret));
    if (hex(check).slice(0, 16) !== found[3]) throw new Error("This key file is damaged: its check does not match.");
    return { secret, origin: found[1] };
  }

  const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  function permutation(secret, n, purpose) {
    const order = Array.from({ length: n }, (_, i) => i);
    const drawn = words(secret, n + 8, `permutation/${purpose}/${n}`).values();
    for (let i = n - 1; i > 0; i--) {
      const m = BigInt(i + 1), limit = 2n ** 64n - (2n ** 64n % m);
      let word = drawn.next().value;
      while (word >= limit) word = drawn.next().value;
      const j = Number(word % m);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  function bits(secret, n, purpose) {
    const bytes = stream(secret, Math.ceil(n / 8), `bits/${purpose}/${n}`);
    return Array.from({ length: n }, (_, i) => (bytes[i >> 3] >> (i & 7)) & 1);
  }

  /* A random orthogonal matrix, by rows. Gram and Schmidt's Q has a positive R, so it is numpy's Q with its signs set. */
  function orthogonal(secret, n, purpose) {
    const uniform = words(secret, 2 * n * n, `orthogonal/${purpose}/${n}`).map((w) => (Number(w >> 11n) + 0.5) / 2 ** 53);
    const column = (j) => Float64Array.from({ length: n }, (_, i) => normal(i * n + j));
    const normal = (at) => Math.sqrt(-2 * Math.log(uniform[at])) * Math.cos(2 * Math.PI * uniform[n * n + at]);
    const columns = [];
    for (let j = 0; j < n; j++) {
      const v = column(j);
      for (let pass = 0; pass < 2; pass++) {
        for (const q of columns) {
          const along = q.reduce((sum, value, i) => sum + value * v[i], 0);
          q.forEach((value, i) => (v[i] -= along * value));
        }
      }
      const length = Math.hypot(...v);
      columns.push(v.map((value) => value / length));
    }
    return columns[0].reduce((rows, _, i) => (rows.push(columns.map((q) => q[i])), rows), []);
  }

  // -- patch ciphers: x' = A x + b for every block, A orthogonal -----------------------------------------------------

  /* steps: "shuffle", "flip", "shuffle+flip" or "orthogonal". */
  function cipher(secret, size, steps) {
    const n = 3 * size * size;
    if (steps === "orthogonal") return { n, size, matrix: orthogonal(secret, n, "orthogonal"), offset: new Array(n).fill(0) };
    const order = steps.includes("shuffle") ? permutation(secret, n, "shuffle") : Array.from({ length: n }, (_, i) => i);
    return fromEntries(order, steps.includes("flip") ? bits(secret, n, "flip") : new Array(n).fill(0), size);
  }

  function fromEntries(order, flipped, size) {
    const n = order.length;
    const matrix = order.map((from, i) => Array.from({ length: n }, (_, j) => (j === from ? 1 - 2 * flipped[i] : 0)));
    return { n, size, permutation: order, flipped, matrix, offset: [...flipped] };
  }

  /* The cipher that leaves everything as it is. */
  const nothing = (size) => fromEntries([...new Array(3 * size * size).keys()], new Array(3 * size * size).fill(0), size);

  /* The cipher with the first `count` entries of `end`, and as much of `start` as can be: `partway` of lock/near.py. Of
  an orthogonal one, the first `count` rows. */
  function partway(start, end, count) {
    if (!start.permutation) return { ...start, matrix: start.matrix.map((row, i) => (i < count ? end.matrix[i] : row)) };
    const order = [...start.permutation];
    for (let i = 0; i < count; i++) {
      const j = order.indexOf(end.permutation[i]);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return fromEntries(order, start.flipped.map((flip, i) => (i < count ? end.flipped[i] : flip)), start.size);
  }

  /* For each block, the place in the image of each of its entries. */
  function places(size, side) {
    const found = [];
    for (let top = 0; top < side; top += size)
      for (let left = 0; left < side; left += size) {
        const block = [];
        for (let c = 0; c < 3; c++)
          for (let y = 0; y < size; y++)
            for (let x = 0; x < size; x++) block.push((c * side + top + y) * side + left + x);
        found.push(block);
      }
    return found;
  }

  const sideOf = (image) => Math.round(Math.sqrt(image.length / 3));

  /* Each block x of an image becomes rows x + offset. */
  function mapped(image, size, rows, offset) {
    const out = new Float64Array(image.length);
    for (const block of places(size, sideOf(image)))
      rows.forEach((row, i) => {
        let sum = offset[i];
        for (let j = 0; j < row.length; j++) if (row[j]) sum += row[j] * image[block[j]];
        out[block[i]] = sum;
      });
    return out;
  }

  const encrypt = (image, { size, matrix, offset }) => mapped(image, size, matrix, offset);

  function decrypt(image, { size, matrix, offset }) {
    const back = matrix.map((_, i) => matrix.map((row) => row[i])); // the inverse, for A is orthogonal
    return mapped(image, size, back, back.map((row) => -row.reduce((sum, value, j) => sum + value * offset[j], 0)));
  }

  // -- the network ---------------------------------------------------------------------------------------------------

  /* The tensors in the bytes of a safetensors file: {name: {shape, values}}. */
  function safetensors(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
      if (dtype !== "F32") continue; // numbers of batches and notes
      tensors[name] = { shape, values: Float64Array.from({ length: (to - from) / 4 }, (_, i) => view.getFloat32(start + from + 4 * i, true)) };
    }
    return tensors;
  }

  /* A ConvMixer of the book, for images in [0, 1]: filters (dim rows of n) and bias are those of the first layer. */
  function convmixer(tensors, mean, std) {
    const get = (name) => tensors[name].values;
    const norm = (name) => {
      const scale = get(`${name}.weight`).map((w, i) => w / Math.sqrt(get(`${name}.running_var`)[i] + 1e-5));
      return { scale, shift: get(`${name}.bias`).map((b, i) => b - get(`${name}.running_mean`)[i] * scale[i]) };
    };
    const [dim, , size] = tensors["0.weight"].shape, n = 3 * size * size;
    const channel = Float64Array.from({ length: n }, (_, i) => Math.floor(i / (size * size)));
    const filters = [], bias = Float64Array.from(get("0.bias"));
    for (let o = 0; o < dim; o++) {
      filters.push(channel.map((c, i) => get("0.weight")[o * n + i] / std[c]));
      filters[o].forEach((w, i) => (bias[o] -= w * mean[channel[i]]));
    }
    const layers = [];
    let at = 3;
    for (; tensors[`${at}.1.weight`]; at++)
      layers.push({
        depthwise: get(`${at}.0.fn.0.weight`), depthwiseBias: get(`${at}.0.fn.0.bias`), depthwiseNorm: norm(`${at}.0.fn.2`),
        pointwise: get(`${at}.1.weight`), pointwiseBias: get(`${at}.1.bias`), pointwiseNorm: norm(`${at}.3`),
      });
    const kernel = tensors["3.0.fn.0.weight"].shape[2];
    const head = { weight: get(`${at + 2}.weight`), bias: get(`${at + 2}.bias`) };
    return { dim, size, kernel, filters, bias, norm: norm("2"), layers, head };
  }

  /* The model whose first layer sees rows x + offset in place of x. */
  function followed(model, rows, offset) {
    const bias = Float64Array.from(model.bias), filters = model.filters.map((filter, o) => {
      const out = new Float64Array(filter.length);
      rows.forEach((row, i) => {
        bias[o] += filter[i] * offset[i];
        for (let j = 0; j < row.length; j++) out[j] += filter[i] * row[j];
      });
      return out;
    });
    return { ...model, filters, bias };
  }

  /* The model for images that the cipher encrypted; and the one that does with plain images what `model` does with
  images that the cipher encrypted, the quick way to try a key: encrypt_model and decrypt_model of lock/model.py. */
  function encryptModel(model, { matrix, offset }) {
    const back = matrix.map((_, i) => matrix.map((row) => row[i]));
    return followed(model, back, back.map((row) => -row.reduce((sum, value, j) => sum + value * offset[j], 0)));
  }
  const decryptModel = (model, { matrix, offset }) => followed(model, matrix, offset);

  /* GELU with erf by Abramowitz and Stegun's formula 7.1.26, right to 1.5e-7. */
  function gelu(x) {
    const z = Math.abs(x) * Math.SQRT1_2, t = 1 / (1 + 0.3275911 * z);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * Math.exp(-z * z);
    return x > 0 ? x * (1 - tail / 2) : (x * tail) / 2;
  }

  function logits(model, image) {
    const { dim, size, kernel } = model, grid = sideOf(image) / size, m = grid * grid, half = kernel >> 1;
    let x = new Float64Array(dim * m), y = new Float64Array(dim * m);
    const n = 3 * size * size, patches = new Float64Array(n * m);
    places(size, sideOf(image)).forEach((block, p) => block.forEach((from, i) => (patches[i * m + p] = image[from])));
    const flat = new Float64Array(dim * n);
    model.filters.forEach((filter, o) => flat.set(filter, o * n));
    product(flat, model.bias, patches, x, dim, n, m);
    activate(x, model.norm, m, null);
    const wide = grid + 2 * half, padded = new Float64Array(wide * wide);
    for (const layer of model.layers) {
      for (let c = 0; c < dim; c++) {
        for (let i = 0; i < grid; i++) for (let j = 0; j < grid; j++) padded[(i + half) * wide + j + half] = x[c * m + i * grid + j];
        for (let i = 0; i < grid; i++)
          for (let j = 0; j < grid; j++) {
            let sum = layer.depthwiseBias[c], w = c * kernel * kernel;
            for (let a = 0; a < kernel; a++) for (let b = 0, at = (i + a) * wide + j; b < kernel; b++) sum += layer.depthwise[w++] * padded[at + b];
            y[c * m + i * grid + j] = sum;
          }
      }
      activate(y, layer.depthwiseNorm, m, x);
      product(layer.pointwise, layer.pointwiseBias, y, x, dim, dim, m);
      activate(x, layer.pointwiseNorm, m, null);
    }
    return Array.from(model.head.bias, (bias, k) => {
      let sum = bias;
      for (let c = 0; c < dim; c++) {
        let total = 0;
        for (let p = 0; p < m; p++) total += x[c * m + p];
        sum += (model.head.weight[k * dim + c] * total) / m;
      }
      return sum;
    });
  }

  /* out (rows, m) = weight (rows, n) x (n, m) + bias; n is a multiple of 4. */
  function product(weight, bias, x, out, rows, n, m) {
    for (let o = 0; o < rows; o++) {
      const to = o * m;
      out.fill(bias[o], to, to + m);
      for (let c = 0; c < n; c += 4) {
        const at = o * n + c, a = weight[at], b = weight[at + 1], d = weight[at + 2], e = weight[at + 3];
        let p0 = c * m, p1 = p0 + m, p2 = p1 + m, p3 = p2 + m;
        for (let p = to; p < to + m; p++) out[p] += a * x[p0++] + b * x[p1++] + d * x[p2++] + e * x[p3++];
      }
    }
  }

  /* GELU, then BatchNorm, then what a residual adds, in place. */
  function activate(x, { scale, shift }, m, added) {
    for (let c = 0; c < scale.length; c++)
      for (let p = c * m; p < (c + 1) * m; p++) x[p] = scale[c] * gelu(x[p]) + shift[c] + (added ? added[p] : 0);
  }

  function softmax(values) {
    const top = Math.max(...values), powers = values.map((value) => Math.exp(value - top));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((value) => value / sum);
  }

  const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const values = (bytes) => Float64Array.from(bytes, (byte) => byte / 255);

  return {
    sha256, hex, stream, experimentKey, keyFromFile, permutation, bits, orthogonal, cipher, fromEntries, nothing, partway, encrypt, decrypt,
    safetensors, convmixer, encryptModel, decryptModel, logits, softmax, fromBase64, values,
  };
})();

if (typeof module !== "undefined") module.exports = globalThis.cmx;
