// A fast OpenAI-compatible engine stand-in: one thread, epoll, several ports.
//
//   engine -p PORT[,PORT...] [-n TOKENS] [-i MICROSECONDS_BETWEEN_CHUNKS]
//
// POST with "stream":true gets TOKENS server-sent events, each with the time it was sent as @T<19 digits>@;
// every other POST gets one JSON completion of about 1 KB; GET gets a small JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

enum { MAX_PORTS = 16, MAX_EVENTS = 512, READ_BYTES = 65536 };

typedef struct {
  char *bytes;
  size_t used, room;
} buffer;

typedef struct connection {
  int fd;
  unsigned generation;  // of the file descriptor's use: a timer of an older one is void
  int streaming, chunk, wants_write;
  buffer in, out;
} connection;

typedef struct {
  uint64_t due_ns;
  connection *owner;
  unsigned generation;
} timer;

static int epoll_fd, tokens = 64;
static uint64_t interval_ns;
static timer *timers;  // all timers wait equally long, so a ring in order of arrival is sorted
static size_t timers_head, timers_tail, timers_room = 1 << 16;
static const char *MODEL = "mock";

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void append(buffer *b, const void *data, size_t size) {
  if (b->used + size > b->room) {
    b->room = (b->used + size) * 2;
    b->bytes = realloc(b->bytes, b->room + 1);
    if (!b->bytes) exit(1);
  }
  memcpy(b->bytes + b->used, data, size);
  b->used += size;
}

static void start_timer(connection *c) {
  size_t next = (timers_tail + 1) % timers_room;
  if (next == timers_head) exit(2);
  timers[timers_tail] = (timer){now_ns() + interval_ns, c, c->generation};
  timers_tail = next;
}

static void watch(connection *c, int for_writing) {
  if (c->wants_write == for_writing) return;
  c->wants_write = for_writing;
  struct epoll_event event = {EPOLLIN | (for_writing ? EPOLLOUT : 0), {.ptr = c}};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void hang_up(connection *c) {
  close(c->fd);
  c->fd = -1;
  c->generation++;
  c->in.used = c->out.used = 0;
  c->streaming = 0;
}

static int flush(connection *c) {
  size_t sent = 0;
  while (sent < c->out.used) {
    ssize_t n = send(c->fd, c->out.bytes + sent, c->out.used - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
      hang_up(c);
      return 0;
    }
    if (n < 0) break;
    sent += n;
  }
  memmove(c->out.bytes, c->out.bytes + sent, c->out.used - sent);
  c->out.used -= sent;
  watch(c, c->out.used > 0);
  return 1;
}

static void answer(connection *c, const char *body) {
  char head[160];
  int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                   strlen(body));
  append(&c->out, head, n);
  append(&c->out, body, strlen(body));
}

static void answer_completion(connection *c) {
  char body[2048];
  snprintf(body, sizeof body,
           "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1741569952,"
           "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A completion of "
           "ordinary length @T%019llu@ with a sentence or two, so that the JSON has the size that it usually has.\","
           "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
           "\"prompt_tokens\":119,\"completion_tokens\":37,\"total_tokens\":156,\"prompt_tokens_details\":{"
           "\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"
           "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
           "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"}",
           MODEL, (unsigned long long)now_ns());
  answer(c, body);
}

static void event(connection *c, const char *json) {
  char head[32];
  size_t size = strlen(json) + 8;
  append(&c->out, head, snprintf(head, sizeof head, "%zx\r\ndata: ", size));
  append(&c->out, json, strlen(json));
  append(&c->out, "\n\n\r\n", 4);
}

#define CHUNK \
  "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1741569952," \
  "\"model\":\"%s\",\"system_fingerprint\":\"fp_mock\",\"choices\":"

static void stream_step(connection *c) {
  char json[1024];
  snprintf(json, sizeof json,
           CHUNK "[{\"index\":0,\"delta\":{\"content\":\"@T%019llu@\"},\"logprobs\":null,\"finish_reason\":null}]}", MODEL,
           (unsigned long long)now_ns());
  event(c, json);
  if (++c->chunk < tokens) {
    start_timer(c);
    flush(c);
    return;
  }
  snprintf(json, sizeof json, CHUNK "[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}", MODEL);
  event(c, json);
  snprintf(json, sizeof json,
           CHUNK "[],\"usage\":{\"prompt_tokens\":119,\"completion_tokens\":%d,\"total_tokens\":%d}}", MODEL, tokens,
           tokens + 119);
  event(c, json);
  event(c, "[DONE]");
  append(&c->out, "0\r\n\r\n", 5);
  c->streaming = 0;
  flush(c);
}

static void start_stream(connection *c) {
  static const char head[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
  append(&c->out, head, sizeof head - 1);
  c->streaming = 1;
  c->chunk = 0;
  start_timer(c);
}

static int asks_stream(const char *body, size_t size) {
  const char *found = memmem(body, size, "\"stream\":", 9);
  if (!found) return 0;
  found += 9;
  while (*found == ' ') found++;
  return *found == 't';
}

// Size of a chunked body including its framing, 0 when it is not complete yet. Asked-for answers do not depend on it.
static size_t chunked_size(const char *body, size_t size) {
  size_t at = 0;
  for (;;) {
    const char *end = memmem(body + at, size - at, "\r\n", 2);
    if (!end) return 0;
    size_t chunk = strtoul(body + at, NULL, 16);
    at = end - body + 2 + chunk + 2;
    if (at > size) return 0;
    if (chunk == 0) return at;
  }
}

static void take_requests(connection *c) {
  while (c->fd >= 0 && !c->streaming && c->in.used) {
    c->in.bytes[c->in.used] = 0;
    char *end = memmem(c->in.bytes, c->in.used, "\r\n\r\n", 4);
    if (!end) return;
    size_t head = end - c->in.bytes + 4, body = 0;
    *end = 0;
    char *length = strcasestr(c->in.bytes, "\r\ncontent-length:");
    int chunked = strcasestr(c->in.bytes, "\r\ntransfer-encoding: chunked") != NULL;
    if (length) body = strtoul(length + 17, NULL, 10);
    *end = '\r';
    if (chunked && !(body = chunked_size(c->in.bytes + head, c->in.used - head))) return;
    if (c->in.used < head + body) return;
    if (!strncmp(c->in.bytes, "GET", 3))
      answer(c, "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"owned_by\":\"mock\","
                "\"max_model_len\":32768}],\"model_path\":\"mock\",\"served_model_name\":\"mock\",\"is_generation\":true}");
    else if (asks_stream(c->in.bytes + head, body))
      start_stream(c);
    else
      answer_completion(c);
    memmove(c->in.bytes, c->in.bytes + head + body, c->in.used - head - body);
    c->in.used -= head + body;
    flush(c);
  }
}

static void receive(connection *c) {
  static char block[READ_BYTES];
  for (;;) {
    ssize_t n = recv(c->fd, block, sizeof block, 0);
    if (n > 0) append(&c->in, block, n);
    if (n == (ssize_t)sizeof block) continue;
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
      hang_up(c);
      return;
    }
    break;
  }
  take_requests(c);
}

static void accept_all(int listener) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection *c = calloc(1, sizeof *c);  // never freed: timers may still point at it
    c->fd = fd;
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
  }
}

static void run_timers(void) {
  uint64_t now = now_ns();
  while (timers_head != timers_tail && timers[timers_head].due_ns <= now) {
    timer due = timers[timers_head];
    timers_head = (timers_head + 1) % timers_room;
    if (due.owner->fd < 0 || due.owner->generation != due.generation) continue;
    stream_step(due.owner);
    take_requests(due.owner);
  }
}

static int wait_events(struct epoll_event *events) {
  struct timespec left, *timeout = NULL;
  if (timers_head != timers_tail) {
    uint64_t now = now_ns(), due = timers[timers_head].due_ns, ns = due > now ? due - now : 0;
    left = (struct timespec){ns / 1000000000ull, ns % 1000000000ull};
    timeout = &left;
  }
  return epoll_pwait2(epoll_fd, events, MAX_EVENTS, timeout, NULL);
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
    perror("engine");
    exit(1);
  }
  return fd;
}

int main(int argc, char **argv) {
  static connection listeners[MAX_PORTS];
  struct epoll_event events[MAX_EVENTS];
  char *ports = "9101";
  int option, count = 0;
  while ((option = getopt(argc, argv, "p:n:i:")) != -1) {
    if (option == 'p') ports = optarg;
    if (option == 'n') tokens = atoi(optarg);
    if (option == 'i') interval_ns = strtoull(optarg, NULL, 10) * 1000;
  }
  signal(SIGPIPE, SIG_IGN);
  epoll_fd = epoll_create1(0);
  timers = malloc(timers_room * sizeof *timers);
  for (char *port = strtok(strdup(ports), ","); port && count < MAX_PORTS; port = strtok(NULL, ","), count++) {
    listeners[count].fd = listen_on(atoi(port));
    struct epoll_event event = {EPOLLIN, {.ptr = &listeners[count]}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listeners[count].fd, &event);
  }
  for (;;) {
    int n = wait_events(events);
    for (int i = 0; i < n; i++) {
      connection *c = events[i].data.ptr;
      if (c >= listeners && c < listeners + MAX_PORTS) {
        accept_all(c->fd);
        continue;
      }
      if (c->fd >= 0 && (events[i].events & EPOLLOUT)) flush(c);
      if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) receive(c);
    }
    run_timers();
  }
}
