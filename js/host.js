// The JavaScript half of the host: it prepares the global scope once per isolate and reduces a job's operations.
//
// It runs as an extension module, before any adaptor or job code, so the built-ins it captures are the real ones.
// `globalThis.__fnhost` is how Rust picks up the two entry points; Rust deletes it before other code runs.

import { core, internals, primordials } from "ext:core/mod.js";
import { adaptor, compileAhead, evaluateAhead, evaluated, evaluateJob, forget } from "ext:fnhost/modules.js";
import { beginSnapshot, endSnapshot, isForeignClass, loadPartAhead, rehearse, runtimeNamespace, warmUp } from "ext:fnhost/snapshot.js";

const { brand } = core.loadExtScript("ext:deno_webidl/00_webidl.js");

// Not from "ext:core/ops": that module was sealed when the runtime's snapshot was made.
const {
  Crypto,
  op_fnhost_call_begin,
  op_fnhost_call_end,
  op_fnhost_caller,
  op_fnhost_intercepted,
  op_fnhost_log,
  op_fnhost_mark,
  op_fnhost_timers,
} = core.ops;
const {
  ArrayIsArray,
  ArrayPrototypeAt,
  ArrayPrototypeIncludes,
  ArrayPrototypeJoin,
  ArrayPrototypeMap,
  ArrayPrototypePop,
  ArrayPrototypePush,
  ArrayPrototypeSlice,
  Error,
  Function,
  JSONParse,
  JSONStringify,
  ObjectDefineProperty,
  ObjectGetPrototypeOf,
  ObjectHasOwn,
  ObjectKeys,
  ObjectPrototypeIsPrototypeOf,
  ObjectPrototypeToString,
  ReflectConstruct,
  ReflectDeleteProperty,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  RangeError,
  String,
  TypeError,
} = primordials;

const EvalError = globalThis.EvalError;

// What `op_fnhost_caller` answers: which kind of script the nearest foreign stack frame belongs to.
const CALLER_HOST = 0;
const CALLER_JOB = 2;

// ---------------------------------------------------------------------------------------------------------------
// Global scope
// ---------------------------------------------------------------------------------------------------------------

// Globals of the embedding runtime that neither a job nor an adaptor has a use for. Web workers, storage and
// dialogs would reach outside the run; the rest only widens the surface.
const REMOVED_GLOBALS = [
  "Worker",
  "alert",
  "confirm",
  "prompt",
  "close",
  "closed",
  "localStorage",
  "sessionStorage",
  "Storage",
  "caches",
  "Cache",
  "CacheStorage",
  "BroadcastChannel",
  "createImageBitmap",
  "Window",
  "window",
  "opener",
  "onload",
  "onbeforeunload",
  "onunload",
];

// Replaces a constructor that compiles strings (`Function` and its async and generator kin) by one that refuses job
// code. Adaptors keep it: ajv, mysql2 and others generate functions. The prototype stays the original, so
// `instanceof` and `x.constructor` behave.
function guardFunctionConstructor(Original) {
  const guarded = function (...args) {
    if (op_fnhost_caller() === CALLER_JOB) {
      throw new EvalError("Code generation from strings is not allowed in a job");
    }
    return ReflectConstruct(Original, args, new.target ?? Original);
  };
  ObjectDefineProperty(guarded, "name", { __proto__: null, value: Original.name });
  ObjectDefineProperty(guarded, "prototype", { __proto__: null, value: Original.prototype });
  ObjectDefineProperty(Original.prototype, "constructor", {
    __proto__: null,
    value: guarded,
    writable: true,
    configurable: true,
  });
  return guarded;
}

function guardCodeGeneration() {
  globalThis.Function = guardFunctionConstructor(Function);
  guardFunctionConstructor(ObjectGetPrototypeOf(async function () {}).constructor);
  guardFunctionConstructor(ObjectGetPrototypeOf(function* () {}).constructor);
  guardFunctionConstructor(ObjectGetPrototypeOf(async function* () {}).constructor);
  // A getter, because an adaptor must get the original: with any other function `eval("require")` would not see the
  // scope that it stands in.
  const originalEval = globalThis.eval;
  const refuse = function (_source) {
    throw new EvalError("Code generation from strings is not allowed in a job");
  };
  ObjectDefineProperty(refuse, "name", { __proto__: null, value: "eval" });
  ObjectDefineProperty(globalThis, "eval", {
    __proto__: null,
    get: () => op_fnhost_caller() === CALLER_JOB ? refuse : originalEval,
    configurable: true,
  });
}

// V8 takes the memory of resizable buffers past the allocator that counts it, so there are none.
function guardBufferConstructor(name) {
  const Original = globalThis[name];
  if (Original === undefined) return;
  const guarded = function (length, options) {
    if (new.target === undefined) throw new TypeError(`Constructor ${name} requires 'new'`);
    if (options?.maxByteLength !== undefined) throw new RangeError(`A resizable ${name} is not available`);
    return ReflectConstruct(Original, [length], new.target === guarded ? Original : new.target);
  };
  for (const key of ReflectOwnKeys(Original)) {
    ObjectDefineProperty(guarded, key, ReflectGetOwnPropertyDescriptor(Original, key));
  }
  const constructor = { __proto__: null, value: guarded, writable: true, configurable: true };
  ObjectDefineProperty(Original.prototype, "constructor", constructor);
  ObjectDefineProperty(globalThis, name, constructor);
}

// The Node layer of the runtime reads `globalThis.Deno` while it runs, so the name must resolve for it and for it
// alone.
function hideRuntimeNamespace(namespace) {
  ObjectDefineProperty(globalThis, "Deno", {
    __proto__: null,
    get: () => op_fnhost_caller() === CALLER_HOST ? namespace : undefined,
    configurable: false,
    enumerable: false,
  });
}

// ---------------------------------------------------------------------------------------------------------------
// Console
// ---------------------------------------------------------------------------------------------------------------

function isPlain(value) {
  const tag = ObjectPrototypeToString(value);
  return tag === "[object Object]" || tag === "[object Array]";
}

// Shows the shape of a credential without its values.
function maskConfiguration(value) {
  if (ArrayIsArray(value) || !ObjectHasOwn(value, "configuration")) return value;
  const configuration = value.configuration;
  const masked = {};
  if (configuration !== null && typeof configuration === "object") {
    for (const key of ObjectKeys(configuration)) masked[key] = "****";
  }
  return { ...value, configuration: masked };
}

let inspect;
function formatArgument(value) {
  if (typeof value === "string") return value;
  if (value === undefined) return "undefined";
  if (value !== null && typeof value === "object" && isPlain(value)) {
    try {
      return stringify(maskConfiguration(value), 2) ?? "undefined";
    } catch {
      // A BigInt or a throwing getter: show what can be shown.
    }
  }
  inspect ??= internals.fnhostInspect;
  return inspect(value);
}

// Labels of one run.
let consoleCounts = { __proto__: null };
let consoleTimers = { __proto__: null };

function makeConsole() {
  const write = (level) => (...args) => {
    op_fnhost_log(level, ArrayPrototypeJoin(ArrayPrototypeMap(args, formatArgument), " "));
  };
  const info = write("info");
  const log = write("log");
  const debug = write("debug");
  const warn = write("warn");
  const error = write("error");
  const console = {
    debug,
    dir: (value) => log(value),
    dirxml: log,
    error,
    info,
    log,
    success: write("success"),
    table: (value) => log(value),
    trace: (...args) => debug("Trace:", ...args),
    warn,
    assert(condition, ...args) {
      if (!condition) error("Assertion failed:", ...args);
    },
    count(label = "default") {
      consoleCounts[label] = (consoleCounts[label] ?? 0) + 1;
      log(`${label}: ${consoleCounts[label]}`);
    },
    countReset(label = "default") {
      consoleCounts[label] = 0;
    },
    time(label = "default") {
      consoleTimers[label] = performance.now();
    },
    timeLog(label = "default", ...args) {
      if (consoleTimers[label] !== undefined) log(`${label}: ${(performance.now() - consoleTimers[label]).toFixed(3)}ms`, ...args);
    },
    timeEnd(label = "default") {
      if (consoleTimers[label] !== undefined) log(`${label}: ${(performance.now() - consoleTimers[label]).toFixed(3)}ms`);
      delete consoleTimers[label];
    },
    group: log,
    groupCollapsed: log,
    groupEnd() {},
    clear() {},
  };
  return console;
}

// ---------------------------------------------------------------------------------------------------------------
// State
// ---------------------------------------------------------------------------------------------------------------

// JSON text of a state. Cycles become "[Circular]"; a BigInt is refused with the path at which it sits.
function stringify(value, indent) {
  try {
    return JSONStringify(value, undefined, indent);
  } catch (error) {
    if (ObjectPrototypeIsPrototypeOf(RangeError.prototype, error)) throw error;
  }
  // Only now pay for tracking ancestors. `this` of a replacer is the object that holds the key.
  const ancestors = [];
  const keys = [];
  return JSONStringify(value, function (key, inner) {
    while (ancestors.length > 0 && ArrayPrototypeAt(ancestors, -1) !== this) {
      ArrayPrototypePop(ancestors);
      ArrayPrototypePop(keys);
    }
    if (typeof inner === "bigint") {
      const path = ArrayPrototypeJoin([...ArrayPrototypeSlice(keys, 1), key], ".");
      throw new TypeError(
        `state.${path} is a BigInt, which JSON cannot hold: convert it with Number(...) or String(...)`,
      );
    }
    if (inner === null || typeof inner !== "object") return inner;
    if (ArrayPrototypeIncludes(ancestors, inner)) return "[Circular]";
    ArrayPrototypePush(ancestors, inner);
    ArrayPrototypePush(keys, key);
    return inner;
  }, indent);
}

const NULL_STATE = Symbol("null state");
function nullState() {
  const state = {};
  ObjectDefineProperty(state, NULL_STATE, { __proto__: null, value: true, enumerable: false });
  return state;
}
const isNullState = (state) => state !== null && typeof state === "object" && state[NULL_STATE] === true;

// ---------------------------------------------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------------------------------------------

// Used when no adaptor brings an `execute` of its own.
function execute(...operations) {
  return async (state) => {
    for (const operation of operations) state = await operation(state);
    return state;
  };
}

class HostError extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

// The class of errors that the module loader raises: see `isolate::loader`.
core.registerErrorClass("ImportError", class ImportError extends Error {
  name = "ImportError";
});

// Describes anything that can be thrown in plain JSON: what Rust needs to classify it.
function describeError(error) {
  if (error === null || (typeof error !== "object" && typeof error !== "function")) {
    return { thrown: true, name: undefined, message: String(error), stack: "", details: undefined };
  }
  let details;
  try {
    const own = {};
    for (const key of ReflectOwnKeys(error)) {
      if (typeof key === "string" && key !== "stack") own[key] = error[key];
    }
    if (error.cause !== undefined) own.cause = describeCause(error.cause);
    details = JSONParse(stringify(own));
  } catch {
    details = undefined;
  }
  const isError = core.isNativeError(error) || ObjectPrototypeIsPrototypeOf(Error.prototype, error);
  let message = error.message;
  if (typeof message !== "string" || (!isError && message === "")) {
    try {
      message = stringify(error) ?? String(error);
    } catch {
      message = ObjectPrototypeToString(error);
    }
  }
  return {
    thrown: !isError,
    name: typeof error.name === "string" ? error.name : undefined,
    className: error.constructor?.name,
    code: typeof error.code === "string" ? error.code : undefined,
    severity: typeof error.severity === "string" ? error.severity : undefined,
    message,
    stack: typeof error.stack === "string" ? error.stack : "",
    details,
  };
}

function describeCause(cause) {
  if (!core.isNativeError(cause)) return cause;
  return { name: cause.name, code: cause.code, message: cause.message };
}

// Runs the operations of a loaded job. Resolves to JSON text: { state?, error?, operation? }, never rejects.
async function run(namespace, stateText, options) {
  let current = JSONParse(stateText);
  op_fnhost_mark("state-read", 0);
  let operation = 0;
  let failure;
  let result;
  try {
    const operations = namespace.default;
    if (!ArrayIsArray(operations)) {
      throw new HostError("InvalidExports", "The default export of a job must be an array of operations");
    }
    const wrapped = ArrayPrototypeMap(operations, (operate, index) => {
      if (typeof operate !== "function") {
        throw new HostError(
          "InvalidOperationError",
          `Invalid operation at statement ${index + 1}: it is ${describeValue(operate)}, not a function that takes state`,
        );
      }
      return async (state) => {
        operation = index + 1;
        if (isNullState(state)) {
          op_fnhost_log(
            "rte-warn",
            `No state was passed into operation ${index + 1}: the operation before it returned nothing`,
          );
          state = {};
        }
        current = state;
        globalThis.state = state;
        op_fnhost_mark("operation-start", index + 1);
        const next = await operate(state);
        op_fnhost_mark("operation-end", index + 1);
        if (!next) return nullState();
        current = next;
        return next;
      };
    });
    const reduce = typeof namespace.execute === "function" ? namespace.execute : execute;
    result = await reduce(...wrapped)(current);
    if (isNullState(result)) result = undefined;
    operation = 0;
  } catch (error) {
    failure = describeError(error);
    result = isNullState(current) ? {} : current;
  }
  op_fnhost_mark("state-left", 0);
  // The outcome is stringified here: a state that cannot be is a failure of the job too.
  let text;
  try {
    if (result !== null && typeof result === "object" && !ArrayIsArray(result)) {
      for (const key of options.remove) {
        // In place: a copy would leave the credential wherever the state refers to itself.
        if (ReflectDeleteProperty(result, key)) continue;
        result = { ...result };
        delete result[key];
      }
    }
    text = stringify(result);
  } catch (error) {
    failure ??= describeError(error);
    if (ObjectPrototypeIsPrototypeOf(RangeError.prototype, error)) failure.tooLarge = true;
  }
  return [text, failure === undefined ? undefined : stringify({ ...failure, operation })];
}

function describeValue(value) {
  if (value === undefined) return "undefined";
  if (value === null) return "null";
  if (ArrayIsArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

// ---------------------------------------------------------------------------------------------------------------
// Entry points
// ---------------------------------------------------------------------------------------------------------------

const loadIntercept = core.createLazyLoader("ext:fnhost/intercept.js");
const loadTrace = core.createLazyLoader("ext:fnhost/trace.js");
const loadSurface = core.createLazyLoader("ext:fnhost/surface.js");

// After the runtime's own bootstrap. What does not depend on the run.
function prepare() {
  const { inspect: denoInspect } = globalThis.Deno;
  internals.fnhostInspect = (value) => denoInspect(value, { depth: 6, colors: false, strAbbreviateSize: 10_000 });
  for (const name of REMOVED_GLOBALS) delete globalThis[name];
  for (const name of ReflectOwnKeys(globalThis)) {
    if (isForeignClass(name)) delete globalThis[name];
  }
  globalThis.console = makeConsole();
  guardCodeGeneration();
  guardBufferConstructor("ArrayBuffer");
  globalThis.state = undefined;
}

// Before any adaptor.
function setup() {
  hideRuntimeNamespace(runtimeNamespace() ?? globalThis.Deno);
  guardBufferConstructor("SharedArrayBuffer");
  // The symbols that mark WebCrypto's keys, which the runtime keeps per thread: those of this isolate, not of the last.
  Crypto.registerSymbols(brand, internals.kKeyObject);
  // For the modules that hand adaptors to the job; Rust deletes it once they are evaluated.
  ObjectDefineProperty(globalThis, "__fnhostAdaptor", { __proto__: null, value: adaptor, configurable: true });
}

// For a test run, before any adaptor.
function intercept() {
  loadIntercept().intercept(op_fnhost_intercepted);
}

// For a run that is part of a trace, before any adaptor.
function trace() {
  loadTrace().trace(op_fnhost_call_begin, op_fnhost_call_end);
}

// For runs that share no evaluated modules, before any adaptor.
function watch() {
  loadSurface().begin(op_fnhost_timers);
}

// After such a run: ends what it left open. Returns what that was, if anything.
function close() {
  return loadSurface().close();
}

// When all has come to rest: makes what runs share as it was before. Returns what is not, if anything.
function putBack() {
  const left = loadSurface().putBack();
  forget();
  return left;
}

// After a run, if there may be another in this isolate.
function clearUp() {
  globalThis.state = undefined;
  consoleCounts = { __proto__: null };
  consoleTimers = { __proto__: null };
  core.setAsyncContext(undefined);
}

// Evaluates a part of the runtime before somebody needs it.
function loadAhead(specifier, isModule) {
  if (isModule) core.createLazyLoader(specifier)();
  else core.loadExtScript(specifier);
}

globalThis.__fnhost = {
  beginSnapshot,
  endSnapshot,
  evaluateAhead,
  loadPartAhead,
  warmUp,
  rehearse,
  prepare,
  setup,
  loadAhead,
  compileAhead,
  intercept,
  trace,
  evaluateJob,
  run,
  evaluated,
  watch,
  close,
  putBack,
  clearUp,
};
