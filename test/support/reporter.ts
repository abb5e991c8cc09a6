/** Reporter for `node:test`: one JSON object a line, for test/run.ts to read (support/test-file.ts). */
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

export interface ReportedTest {
  readonly kind: 'begun' | 'passed' | 'failed' | 'skipped';
  readonly name: string;
  /** 0 at the top level of a file. */
  readonly nesting: number;
  /** A group (`describe`): not counted as a test. */
  readonly isGroup: boolean;
  readonly durationMs: number;
  /** Why it failed or was skipped; '' otherwise. */
  readonly detail: string;
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    const reported = toReported(event);
    if (reported !== null) yield `${JSON.stringify(reported)}\n`;
  }
}

function toReported(event: TestEvent): ReportedTest | null {
  switch (event.type) {
    case 'test:dequeue': {
      const { name, nesting } = event.data;
      return { kind: 'begun', name, nesting, isGroup: false, durationMs: 0, detail: '' };
    }
    case 'test:pass': {
      const { name, nesting, skip, todo, details } = event.data;
      const reason = skip ?? todo;
      const isSkipped = reason !== undefined && reason !== false;
      const detail = typeof reason === 'string' ? reason : '';
      const kind = isSkipped ? 'skipped' : 'passed';
      return { kind, name, nesting, isGroup: details.type === 'suite', durationMs: details.duration_ms, detail };
    }
    case 'test:fail': {
      const { name, nesting, details, line } = event.data;
      const cause = details.error.cause ?? details.error;
      // A group, or a test with subtests, fails because one inside did, which has been told already.
      const isEcho = (details.error as { failureType?: string }).failureType === 'subtestsFailed';
      const where = line === undefined ? '' : `at line ${line}: `;
      const detail = isEcho ? '' : where + inspect(cause, { depth: 6, breakLength: 120 });
      const isGroup = isEcho || details.type === 'suite';
      return { kind: 'failed', name, nesting, isGroup, durationMs: details.duration_ms, detail };
    }
    case 'test:diagnostic': {
      // A promise that is rejected when its test is over: the file ends with 1, and nothing else says why.
      const { message, nesting } = event.data;
      if (!message.includes('asynchronous activity after the test ended')) return null;
      const name = 'nothing goes on behind the end of a test';
      return { kind: 'failed', name, nesting, isGroup: false, durationMs: 0, detail: message };
    }
    default:
      return null;
  }
}
