// A peer: `@openfn/runtime` on a compiled job. `node openfn-runtime.mjs JOB ADAPTOR` runs it once; with a number of seconds
// behind it, again and again in this process, where the adaptor's modules are loaded once, and tells what a run took.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import run from "@openfn/runtime";

const [, , job, adaptor, seconds] = process.argv;
const manifest = createRequire(import.meta.url).resolve(`${adaptor}/package.json`);
const { version } = JSON.parse(readFileSync(manifest));
const nothing = () => {};
const logger = { debug: nothing, info: nothing, log: nothing, success: nothing, warn: nothing, always: nothing };
logger.error = console.error;
logger.timer = () => "";
const workflow = { steps: [{ id: "a", expression: readFileSync(job, "utf8") }] };
const linker = { modules: { [adaptor]: { path: manifest.replace(/\/package.json$/, ""), version } } };
const once = () => run({ workflow }, {}, { logger, linker });

async function again(seconds) {
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  let runs = 0;
  do {
    await once();
    runs++;
  } while (performance.now() - started < seconds * 1000);
  const { user, system } = process.cpuUsage(cpu);
  return { rate: (runs * 1000) / (performance.now() - started), cpu: (user + system) / runs };
}

if (seconds === undefined) {
  await once();
} else {
  await again(seconds / 4);
  console.log(JSON.stringify(await again(seconds)));
}
