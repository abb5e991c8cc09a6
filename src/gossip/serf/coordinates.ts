import { COORDINATE_DIMENSIONS, COORDINATE_ERROR_MAX, COORDINATE_HEIGHT_MIN } from './limits.ts';
import type { Coordinate } from './messages.ts';

/**
 * Where this node says that it is: at the origin, and quite unsure of it (hashicorp/serf coordinate/coordinate.go NewCoordinate). It never moves, since nothing
 * here asks for distances. Serf's agents weigh another's coordinate by its error, so this one of the largest error hardly moves theirs.
 */
export const OWN_COORDINATE: Coordinate = {
  vector: new Array<number>(COORDINATE_DIMENSIONS).fill(0),
  error: COORDINATE_ERROR_MAX,
  adjustment: 0,
  height: COORDINATE_HEIGHT_MIN,
};

/** coordinate/client.go checkCoordinate: of the same number of dimensions, and finite. */
export function isValidCoordinate(coordinate: Coordinate): boolean {
  const { vector, error, adjustment, height } = coordinate;
  return vector.length === COORDINATE_DIMENSIONS && [...vector, error, adjustment, height].every(Number.isFinite);
}
