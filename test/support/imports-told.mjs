/** Preloaded into a process (`--import`): tells on stderr of every package of OpenTelemetry that it, or a thread of it, loads. */
import { writeSync } from 'node:fs';
import { registerHooks } from 'node:module';

registerHooks({
  load(url, context, next) {
    if (url.includes('@opentelemetry')) writeSync(2, `loaded ${url}\n`);
    return next(url, context);
  },
});
