/** A program on a terminal of its own: what it shows, keys, resizing, signals. Needs the tool `terminal`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Runs argv[3:] on a new pseudo-terminal of argv[1] rows and argv[2] columns. Its input is passed on; lines of descriptor 3 are "resize ROWS
 * COLUMNS". Its last line on descriptor 4 says how the program ended and whether the terminal was left as it was.
 */
const RELAY = `
import os, sys, pty, select, fcntl, termios, struct, signal
rows, columns = int(sys.argv[1]), int(sys.argv[2])
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[3], sys.argv[3:])
size = lambda r, c: fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', r, c, 0, 0))
size(rows, columns)
before = termios.tcgetattr(master)
os.write(4, ('pid %d\\n' % pid).encode())
watched = [0, 3, master]
while True:
    ready, _, _ = select.select(watched, [], [])
    if master in ready:
        try:
            data = os.read(master, 65536)
        except OSError:
            data = b''
        if not data:
            break
        os.write(1, data)
    if 0 in ready:
        data = os.read(0, 65536)
        if data: os.write(master, data)
        else: watched.remove(0)
    if 3 in ready:
        data = os.read(3, 4096)
        if not data:
            watched.remove(3)
        for line in data.decode().split('\\n'):
            if line.startswith('resize'):
                size(*map(int, line.split()[1:]))
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
kept = termios.tcgetattr(master) == before
os.write(4, ('end %d %s\\n' % (code, 'kept' if kept else 'changed')).encode())
`;

export class Terminal {
  readonly #relay: ChildProcess;
  readonly #screen = new ScreenModel();
  #said = '';

  constructor(
    argv: readonly string[],
    options: { rows: number; columns: number; cwd: string; env: Readonly<Record<string, string | undefined>> },
  ) {
    const { rows, columns, cwd, env } = options;
    this.#relay = spawn('python3', ['-c', RELAY, String(rows), String(columns), ...argv], {
      cwd,
      env: { ...env, TERM: 'xterm-256color' },
      stdio: ['pipe', 'pipe', 'inherit', 'pipe', 'pipe'],
    });
    this.#relay.stdout?.setEncoding('utf8').on('data', (text: string) => this.#screen.write(text));
    const said = this.#relay.stdio[4] as NodeJS.ReadableStream;
    said.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
    });
  }

  /** Lines as they stand, without spaces at their ends; of the alternate screen if the program has taken that. */
  get lines(): string[] {
    return this.#screen.lines;
  }

  get text(): string {
    return this.lines.join('\n');
  }

  /** The program draws on the alternate screen, and hides the cursor. */
  get isTaken(): { readonly alternate: boolean; readonly cursorHidden: boolean } {
    return { alternate: this.#screen.isAlternate, cursorHidden: this.#screen.isCursorHidden };
  }

  /** How many bytes it has written, and all that was written. */
  get written(): string {
    return this.#screen.written;
  }

  press(keys: string): void {
    this.#relay.stdin?.write(keys);
  }

  resize(rows: number, columns: number): void {
    (this.#relay.stdio[3] as NodeJS.WritableStream).write(`resize ${rows} ${columns}\n`);
  }

  /** Of the program; null until it is known. */
  get pid(): number | null {
    const [, pid] = /pid (\d+)/.exec(this.#said) ?? [];
    return pid === undefined ? null : Number(pid);
  }

  /** The exit code, or minus the number of the signal. */
  async ended(): Promise<number> {
    if (this.#relay.exitCode === null) await once(this.#relay, 'close');
    return Number(/end (-?\d+)/.exec(this.#said)?.[1]);
  }

  /** Its modes, such as echo, are as they were; once the program has ended. */
  get isKept(): boolean {
    return /end -?\d+ kept/.test(this.#said);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { pid } = this;
    if (pid !== null && !this.#said.includes('end')) process.kill(pid, 'SIGKILL');
    if (this.#relay.exitCode === null) {
      this.#relay.stdin?.end();
      await once(this.#relay, 'close');
    }
  }
}

/** As much of a terminal as full-screen programs without scrolling use. */
class ScreenModel {
  isAlternate = false;
  isCursorHidden = false;
  written = '';
  #plain: string[] = [];
  #alternate: string[] = [];
  #row = 0;
  #column = 0;
  #rest = '';

  get lines(): string[] {
    return [...(this.isAlternate ? this.#alternate : this.#plain)].map((line) => (line ?? '').trimEnd());
  }

  write(text: string): void {
    this.written += text;
    let rest = this.#rest + text;
    this.#rest = '';
    while (rest !== '') {
      if (rest[0] !== '\u001b') {
        const end = rest.indexOf('\u001b');
        this.#print(end < 0 ? rest : rest.slice(0, end));
        rest = end < 0 ? '' : rest.slice(end);
        continue;
      }
      const [whole, mode, parameters = '', final] = /^\[(\??)([0-9;]*)([A-Za-z])/.exec(rest.slice(1)) ?? [];
      if (whole === undefined) {
        this.#rest = rest;
        return;
      }
      this.#command(`${mode}${final}`, parameters);
      rest = rest.slice(1 + whole.length);
    }
  }

  #command(command: string, parameters: string): void {
    const lines = this.isAlternate ? this.#alternate : this.#plain;
    switch (command) {
      case '?h':
      case '?l':
        if (parameters === '1049') this.isAlternate = command === '?h';
        if (parameters === '25') this.isCursorHidden = command === '?l';
        return;
      case 'H': {
        const [row = 1, column = 1] = parameters.split(';').map(Number);
        this.#row = row - 1;
        this.#column = column - 1;
        return;
      }
      case 'K':
        lines[this.#row] = parameters === '2' ? '' : (lines[this.#row] ?? '').slice(0, this.#column);
        return;
      case 'J':
        lines.length = 0;
        return;
      default:
        return; // Colours.
    }
  }

  #print(text: string): void {
    const lines = this.isAlternate ? this.#alternate : this.#plain;
    for (const char of text) {
      if (char === '\r') this.#column = 0;
      else if (char === '\n') this.#row += 1;
      else {
        const line = (lines[this.#row] ?? '').padEnd(this.#column);
        lines[this.#row] = line.slice(0, this.#column) + char + line.slice(this.#column + 1);
        this.#column += 1;
      }
    }
  }
}
