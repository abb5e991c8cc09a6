#!/usr/bin/env node
/** The `broker` command. Runs the TypeScript sources where they are (a clone), else the build in dist/ (the package, the image). */
import { existsSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isLaunched, launch, stopWithLauncher } from './node24.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Imports a module of src/ by its path without extension. Node strips no types below node_modules, so there the build is used. */
function load(path) {
  const source = join(root, 'src', `${path}.ts`);
  const isInstalled = root.split(sep).includes('node_modules');
  if (!isInstalled && existsSync(source)) return import(pathToFileURL(source).href);
  process.setSourceMapsEnabled(true);
  return import(pathToFileURL(join(root, 'dist', `${path}.js`)).href);
}

if (isLaunched()) {
  stopWithLauncher();
  const { run } = await load('cli/run');
  const serve = async (config) => (await load('main')).serve(config);
  const copyStore = async (request) => (await load('copy/store-copy')).copyStore(request);
  process.exitCode = await run(process.argv.slice(2), { serve, copyStore });
} else {
  launch([fileURLToPath(import.meta.url), ...process.argv.slice(2)]);
}
