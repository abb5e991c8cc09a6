#!/usr/bin/env node
/** The `broker` command. Runs the TypeScript sources where they are (a clone), else the build in dist/ (the package, the image). */
import { existsSync } from 'node:fs';
import nodeModule from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isLaunched, launch, stopWithLauncher } from './node24.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Keeps what Node makes of the sources for later starts: a third of a start's processor time. Only below a folder whose owner could change the
 * sources as well, never in one that all may write to. Threads learn of it by the environment. (The launcher runs this file on older Nodes too, which have no such function to import by name.) Where it cannot be written, starts take what they took.
 */
function keepCompiled() {
  process.env.NODE_COMPILE_CACHE ??= join(root, 'node_modules', '.cache', 'compiled');
  nodeModule.enableCompileCache(process.env.NODE_COMPILE_CACHE);
}

/** Imports a module of src/ by its path without extension. Node strips no types below node_modules, so there the build is used. */
function load(path) {
  const source = join(root, 'src', `${path}.ts`);
  const isInstalled = root.split(sep).includes('node_modules');
  if (!isInstalled && existsSync(source)) return import(pathToFileURL(source).href);
  process.setSourceMapsEnabled(true);
  return import(pathToFileURL(join(root, 'dist', `${path}.js`)).href);
}

/**
 * As process 1 of a container a signal that nothing listens to does nothing, not even SIGTERM: until the server listens, it ends the process
 * here, where nothing has begun. The function that is returned ends that.
 */
function stopBeforeStart() {
  if (process.pid !== 1 || process.argv[2] !== 'serve') return () => undefined;
  const end = () => process.exit(0);
  const signals = ['SIGTERM', 'SIGINT'];
  for (const signal of signals) process.on(signal, end);
  return () => signals.forEach((signal) => void process.off(signal, end));
}

const listens = stopBeforeStart();
if (isLaunched()) {
  stopWithLauncher();
  keepCompiled();
  const { run } = await load('cli/run');
  const serve = async (loaded) => {
    const main = await load('main');
    const ended = main.serve(loaded);
    listens();
    return await ended;
  };
  const copyStore = async (request) => (await load('copy/store-copy')).copyStore(request);
  const offline = async (what, request) => {
    const [{ recovery }, { failpointSpec }] = await Promise.all([load('recovery/run'), load('config/environment')]);
    return recovery(failpointSpec())[what](request);
  };
  const recovery = {
    recover: (request) => offline('recover', request),
    restore: (request) => offline('restore', request),
    backup: (request) => offline('backup', request),
    verify: (request) => offline('verify', request),
  };
  process.exitCode = await run(process.argv.slice(2), { serve, copyStore, recovery });
} else {
  launch([fileURLToPath(import.meta.url), ...process.argv.slice(2)]);
}
