/** A step: the wall clock went this much further, or less far, than the monotonic one since it was last looked at. */
const STEP_MS = 60_000;
/** How long nothing is deleted by time after a step. */
const QUIET_MS = 600_000;

/** Notices when the wall clock is set. Look at least once a minute; slow drift is not a step. */
export class ClockSteps {
  #wall: number;
  #monotonic: number;
  #quietUntil = Number.NEGATIVE_INFINITY;

  /** `wall` in epoch ms, `monotonic` in ms of a clock that is never set. */
  constructor(wall: number, monotonic: number) {
    this.#wall = wall;
    this.#monotonic = monotonic;
  }

  /** True while nothing may be deleted by time. */
  observe(wall: number, monotonic: number): boolean {
    const step = wall - this.#wall - (monotonic - this.#monotonic);
    if (Math.abs(step) > STEP_MS) this.#quietUntil = monotonic + QUIET_MS;
    this.#wall = wall;
    this.#monotonic = monotonic;
    return monotonic < this.#quietUntil;
  }
}
