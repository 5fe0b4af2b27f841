// HTTP load for gateways: closed loop, or open loop (Poisson) with latency from the time a request was due.
//
//   load -u HOST:PORT [-P PATH] [-c CONNECTIONS] [-d SECONDS] [-w WARMUP_SECONDS] [-r RATE] [-s] -b BODY_FILE [-H "k: v"]
//
// Prints one JSON object. With -s every @T<19 digits>@ in an answer gives the one-way delay of its chunk.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 64, BUCKETS = 64 * STEPS, STAMP = 22, IN_BYTES = 1 << 17 };

typedef struct {  // logarithmic, 64 steps per power of two: 1.1 % wide
  uint64_t bucket[BUCKETS], count;
  double sum;
} histogram;

typedef struct {
  int fd, busy, status, chunked, close_after, headed, wants_write, seen_first;
  long length, body_bytes;
  size_t sent, used;
  uint64_t due_ns;
  char in[IN_BYTES + 1];
} connection;

static histogram whole, first, chunk_delay;
static connection *connections;
static int *idle, idle_count, connection_count = 32, streaming, epoll_fd;
static uint64_t *waiting, begin_ns, end_ns, done, errors, broken, chunks;
static size_t waiting_head, waiting_tail, waiting_room = 1 << 20, request_bytes;
static char *request;
static double rate;
static struct sockaddr_in address;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void record(histogram *h, uint64_t value) {
  int power = value < STEPS ? 0 : 63 - __builtin_clzll(value) - 5;
  int index = power ? power * STEPS + (int)(value >> (power - 1)) - STEPS : (int)value;
  h->bucket[index < BUCKETS ? index : BUCKETS - 1]++;
  h->count++;
  h->sum += value;
}

static double quantile_us(const histogram *h, double q) {
  uint64_t target = (uint64_t)ceil(q * h->count), seen = 0;
  for (int i = 0; i < BUCKETS && h->count; i++) {
    seen += h->bucket[i];
    if (seen < target || !seen) continue;
    int power = i / STEPS;
    double low = power ? (double)((uint64_t)(i % STEPS + STEPS) << (power - 1)) : i;
    return (low + (power ? ldexp(0.5, power - 1) : 0)) / 1e3;
  }
  return 0;
}

static int measured(uint64_t t) { return t >= begin_ns && t < end_ns; }

static void watch(connection *c, int for_writing) {
  if (c->wants_write == for_writing) return;
  c->wants_write = for_writing;
  struct epoll_event event = {EPOLLIN | (for_writing ? EPOLLOUT : 0), {.ptr = c}};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void dial(connection *c) {
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (void *)&address, sizeof address)) {
    perror("load: connect");
    exit(1);
  }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c->used = 0;
  c->wants_write = 0;
  struct epoll_event event = {EPOLLIN, {.ptr = c}};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void push(connection *c) {
  while (c->sent < request_bytes) {
    ssize_t n = send(c->fd, request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      watch(c, errno == EAGAIN);
      return;
    }
    c->sent += n;
  }
  watch(c, 0);
}

static void fire(connection *c, uint64_t due) {
  c->due_ns = due;
  c->busy = 1;
  c->headed = c->chunked = c->close_after = c->seen_first = c->status = 0;
  c->length = -1;
  c->body_bytes = 0;
  c->sent = 0;
  push(c);
}

static void next(connection *c, uint64_t t) {
  c->busy = 0;
  if (rate <= 0) {
    if (t < end_ns) fire(c, t);
  } else if (waiting_head != waiting_tail) {
    uint64_t due = waiting[waiting_head];
    waiting_head = (waiting_head + 1) % waiting_room;
    fire(c, due);
  } else {
    idle[idle_count++] = c - connections;
  }
}

static void finish(connection *c, uint64_t t) {
  if (measured(t)) {
    done++;
    if (c->status >= 200 && c->status < 300)
      record(&whole, t - c->due_ns);
    else
      errors++;
  }
  if (c->close_after) {
    close(c->fd);
    dial(c);
  }
  next(c, t);
}

// Reads the stamps in what has arrived; the part of a stamp at the end is left for the next time.
static size_t read_stamps(connection *c, const char *data, size_t size, uint64_t t) {
  size_t at = 0;
  const char *found;
  while ((found = memmem(data + at, size - at, "@T", 2))) {
    at = found - data;
    if (at + STAMP > size) return at;
    uint64_t sent = strtoull(found + 2, NULL, 10);
    if (measured(t)) {
      chunks++;
      if (streaming && t > sent) record(&chunk_delay, t - sent);
      if (!c->seen_first) record(&first, t - c->due_ns);
    }
    c->seen_first = 1;
    at += STAMP;
  }
  return size && data[size - 1] == '@' && at < size ? size - 1 : size;
}

static int read_head(connection *c) {
  char *end = memmem(c->in, c->used, "\r\n\r\n", 4), *found;
  if (!end) return 0;
  *end = 0;
  c->status = atoi(c->in + 9);
  if ((found = strcasestr(c->in, "\r\ncontent-length:"))) c->length = atol(found + 17);
  c->chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked") != NULL;
  c->close_after = strcasestr(c->in, "\r\nconnection: close") != NULL;
  c->headed = 1;
  size_t size = end + 4 - c->in;
  memmove(c->in, c->in + size, c->used - size);
  c->used -= size;
  return 1;
}

// Chunked bodies are not taken apart: stamps are searched in the raw bytes, and the end is the last chunk.
static void consume(connection *c, uint64_t t) {
  if (!c->headed && !read_head(c)) return;
  if (!c->chunked) {
    if (c->length < 0 || c->body_bytes + (long)c->used < c->length) return;
    read_stamps(c, c->in, c->used, t);
    c->used = 0;
    finish(c, t);
    return;
  }
  int ended = c->used >= 5 && !memcmp(c->in + c->used - 5, "0\r\n\r\n", 5);
  size_t read = read_stamps(c, c->in, c->used, t), keep = c->used - read;
  if (keep < 8 && c->used >= 8) keep = 8, read = c->used - 8;  // the last chunk may come in pieces
  memmove(c->in, c->in + read, keep);
  c->used = keep;
  if (ended) {
    c->used = 0;
    finish(c, t);
  }
}

static void receive(connection *c) {
  ssize_t n = recv(c->fd, c->in + c->used, IN_BYTES - c->used, MSG_DONTWAIT);
  uint64_t t = now_ns();
  if (n > 0) {
    c->used += n;
    c->in[c->used] = 0;
    if (c->busy) consume(c, t);
    return;
  }
  if (n < 0 && errno == EAGAIN) return;
  if (c->busy && measured(t)) broken++;
  int busy = c->busy;
  close(c->fd);
  dial(c);
  if (busy) next(c, t);
}

static void read_body(const char *path, const char *target, const char *host, const char *headers) {
  FILE *file = fopen(path, "r");
  if (!file) {
    perror(path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  request = malloc(size + strlen(headers) + 1024);
  request_bytes = sprintf(request, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: */*\r\n"
                                   "User-Agent: OpenAI/Python 2.54.0\r\n%sContent-Length: %ld\r\n\r\n",
                          target, host, headers, size);
  request_bytes += fread(request + request_bytes, 1, size, file);
  fclose(file);
}

static uint64_t fire_due(uint64_t t, uint64_t due) {
  while (due <= t) {
    if (idle_count) {
      fire(&connections[idle[--idle_count]], due);
    } else {
      waiting[waiting_tail] = due;
      waiting_tail = (waiting_tail + 1) % waiting_room;
    }
    due += (uint64_t)(-log(1 - drand48()) / rate * 1e9);
  }
  return due;
}

static void run(void) {
  struct epoll_event events[1024];
  uint64_t t, due = now_ns();
  while ((t = now_ns()) < end_ns) {
    uint64_t until = rate > 0 && due < end_ns ? due : end_ns, ns = until > t ? until - t : 0;
    struct timespec timeout = {ns / 1000000000ull, ns % 1000000000ull};
    int n = epoll_pwait2(epoll_fd, events, 1024, &timeout, NULL);
    if (rate > 0) due = fire_due(now_ns(), due);
    for (int i = 0; i < n; i++) {
      connection *c = events[i].data.ptr;
      if (events[i].events & EPOLLOUT) push(c);
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
    }
  }
}

static void report(double seconds) {
  printf("{\"seconds\":%.3f,\"done\":%llu,\"requests_per_s\":%.1f,\"errors\":%llu,\"broken\":%llu,\"chunks\":%llu,",
         seconds, (unsigned long long)done, done / seconds, (unsigned long long)errors, (unsigned long long)broken,
         (unsigned long long)chunks);
  printf("\"chunks_per_s\":%.1f,\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f},", chunks / seconds,
         quantile_us(&whole, .5), quantile_us(&whole, .9), quantile_us(&whole, .99));
  printf("\"first_us\":{\"p50\":%.1f,\"p99\":%.1f},\"chunk_delay_us\":{\"p50\":%.1f,\"p99\":%.1f}}\n",
         quantile_us(&first, .5), quantile_us(&first, .99), quantile_us(&chunk_delay, .5), quantile_us(&chunk_delay, .99));
}

int main(int argc, char **argv) {
  char *target = "/v1/chat/completions", *body = NULL, host[64] = "127.0.0.1:8000", headers[8192] = "";
  double seconds = 5, warmup = 1;
  int option;
  while ((option = getopt(argc, argv, "u:P:c:d:w:r:sb:H:")) != -1) switch (option) {
      case 'u': snprintf(host, sizeof host, "%s", optarg); break;
      case 'P': target = optarg; break;
      case 'c': connection_count = atoi(optarg); break;
      case 'd': seconds = atof(optarg); break;
      case 'w': warmup = atof(optarg); break;
      case 'r': rate = atof(optarg); break;
      case 's': streaming = 1; break;
      case 'b': body = optarg; break;
      case 'H': snprintf(headers + strlen(headers), sizeof headers - strlen(headers), "%s\r\n", optarg); break;
      default: return 2;
    }
  char *colon = strchr(host, ':');
  if (!body || !colon) return 2;
  signal(SIGPIPE, SIG_IGN);
  srand48(42);
  read_body(body, target, host, headers);
  address.sin_family = AF_INET;
  address.sin_port = htons(atoi(colon + 1));
  *colon = 0;
  inet_pton(AF_INET, host, &address.sin_addr);
  epoll_fd = epoll_create1(0);
  connections = calloc(connection_count, sizeof *connections);
  idle = malloc(connection_count * sizeof *idle);
  waiting = malloc(waiting_room * sizeof *waiting);
  begin_ns = now_ns() + (uint64_t)(warmup * 1e9);
  end_ns = begin_ns + (uint64_t)(seconds * 1e9);
  for (int i = 0; i < connection_count; i++) {
    dial(&connections[i]);
    if (rate > 0)
      idle[idle_count++] = i;
    else
      fire(&connections[i], now_ns());
  }
  run();
  report(seconds);
  return 0;
}
