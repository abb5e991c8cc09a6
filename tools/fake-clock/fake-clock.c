/*
 * A wall clock and a steady clock of its own for one process (LD_PRELOAD): what time it is comes from a file that the test writes to while the
 * process runs, so a clock can be set, be too fast or too slow, or stand still while the machine is suspended. See test/support/fake-clock.ts.
 *
 * Not libfaketime: that reads its file anew for every question about the time, or only every few seconds, and takes locks on the way.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

/* As the test writes it, little endian: `edits` is odd while it does. */
struct settings {
  uint64_t edits;
  int64_t wall_ns;   /* the wall clock is ahead by so much at since_ns */
  int64_t steady_ns; /* the steady clock is ahead by so much; less than 0: that long it stood still */
  int64_t since_ns;  /* of the machine's steady clock */
  double rate;       /* how fast the wall clock goes from then on, 1 = right */
};

static volatile struct settings *settings;

static int real_gettime(clockid_t id, struct timespec *at) { return (int)syscall(SYS_clock_gettime, id, at); }

__attribute__((constructor)) static void open_settings(void) {
  const char *path = getenv("FAKE_CLOCK_FILE");
  int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct settings), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) settings = mapped;
}

static struct settings now_set(void) {
  struct settings copy = {0, 0, 0, 0, 1.0};
  if (settings == NULL) return copy;
  do {
    copy.edits = __atomic_load_n(&settings->edits, __ATOMIC_ACQUIRE);
    copy.wall_ns = settings->wall_ns;
    copy.steady_ns = settings->steady_ns;
    copy.since_ns = settings->since_ns;
    copy.rate = settings->rate;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
  } while ((copy.edits & 1) != 0 || copy.edits != settings->edits);
  return copy;
}

static int64_t ns_of(const struct timespec *at) { return at->tv_sec * SECOND + at->tv_nsec; }

static struct timespec later(const struct timespec *at, int64_t ns) {
  int64_t sum = ns_of(at) + ns;
  struct timespec result = {sum / SECOND, sum % SECOND};
  if (sum < 0) result = (struct timespec){0, 0};
  return result;
}

/* How far the clock is ahead of the machine's. */
static int64_t ahead(clockid_t id) {
  struct settings set = now_set();
  struct timespec steady;
  switch (id) {
  case CLOCK_REALTIME:
  case CLOCK_REALTIME_COARSE:
    if (set.rate == 1.0) return set.wall_ns;
    real_gettime(CLOCK_MONOTONIC, &steady);
    return set.wall_ns + (int64_t)((ns_of(&steady) - set.since_ns) * (set.rate - 1.0));
  case CLOCK_MONOTONIC:
  case CLOCK_MONOTONIC_COARSE:
  case CLOCK_MONOTONIC_RAW:
    return set.steady_ns;
  default:
    return 0;
  }
}

int clock_gettime(clockid_t id, struct timespec *at) {
  int result = real_gettime(id, at);
  if (result == 0) *at = later(at, ahead(id));
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into != NULL) *into = now.tv_sec;
  return now.tv_sec;
}

/* Waits until a time of its own clock are until a time of the machine's. libuv's and V8's condition variables have the steady clock. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (wait == NULL) wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (wait == NULL) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec at = later(until, -ahead(CLOCK_MONOTONIC));
  return wait(cond, mutex, &at);
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
  static int (*wait)(sem_t *, const struct timespec *);
  if (wait == NULL) wait = dlsym(RTLD_NEXT, "sem_timedwait");
  struct timespec at = later(until, -ahead(CLOCK_REALTIME));
  return wait(sem, &at);
}
