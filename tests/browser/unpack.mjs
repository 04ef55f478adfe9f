// node unpack.mjs FILE.br FILE ...: unpacks what is packed with Brotli, which Python cannot do.

import { createReadStream, createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const given = process.argv.slice(2);
for (let place = 0; place < given.length; place += 2) {
  await pipeline(createReadStream(given[place]), createBrotliDecompress(), createWriteStream(given[place + 1]));
}
