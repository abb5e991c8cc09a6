import { LAMPORT_MAX } from './limits.ts';

/** A Lamport clock (hashicorp/serf serf/lamport.go). It stops at LAMPORT_MAX: only a forger gets it there. */
export class LamportClock {
  #time = 0;

  /** The time that the next thing of this node has. */
  get time(): number {
    return this.#time;
  }

  increment(): void {
    this.#time = Math.min(this.#time + 1, LAMPORT_MAX);
  }

  /** Another has said something at `time`: what is said here from now on is later. */
  witness(time: number): void {
    if (time >= this.#time) this.#time = Math.min(time + 1, LAMPORT_MAX);
  }
}
