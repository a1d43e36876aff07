/* An open-loop client: requests leave at fixed moments whether or not answers came, and latency runs from the moment a
 * request was due, so that a stall is counted in full (no coordinated omission).
 *
 *     paced PORT CONNECTIONS RATE SECONDS [REQUESTS_PER_CONNECTION]
 *
 * Keep-alive GET /s to 127.0.0.1:PORT.  A request that is due while all connections are busy waits in line, and that
 * wait is latency, too.  With the last argument a connection is closed and opened anew after so many requests.
 * Every answer must have the length of the first one and end with the same 32 bytes.  Prints one JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BODY = 32, MOST = 4096, MAX_CONNS = 4096 };
static const char REQUEST[] = "GET /s HTTP/1.1\r\nHost: bench\r\n\r\n";

struct conn {
    int fd;
    int got;           /* bytes of the answer so far */
    int done;          /* requests on this connection */
    int64_t due;       /* when its request should have left, 0 = idle */
    char answer[MOST];
};

static struct conn conns[MAX_CONNS];
static int idle[MAX_CONNS], idle_count, expected, port, turnover;
static char body[BODY];
static int64_t errors, wrong, opened;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char* what) {
    fprintf(stderr, "paced: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void conn_open(int epfd, int i) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    int one = 1;
    conns[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conns[i].fd < 0 || connect(conns[i].fd, (struct sockaddr*)&to, sizeof to) < 0) die("connect");
    setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conns[i].done = conns[i].got = 0;
    opened++;
    if (epoll_ctl(epfd, EPOLL_CTL_ADD, conns[i].fd, &event) < 0) die("epoll_ctl");
}

static void request(int i, int64_t due) {
    conns[i].due = due;
    conns[i].got = 0;
    if (send(conns[i].fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) != sizeof REQUEST - 1) errors++;
}

/* The first answer, read to its end, is what all others are compared with. */
static void learn(int i) {
    char* end = NULL;
    request(i, 0);
    while (!end || conns[i].got < end + 4 + BODY - conns[i].answer) {
        ssize_t n = recv(conns[i].fd, conns[i].answer + conns[i].got, MOST - 1 - conns[i].got, 0);
        if (n <= 0) die("first answer");
        conns[i].got += n;
        conns[i].answer[conns[i].got] = 0;
        end = strstr(conns[i].answer, "\r\n\r\n");
    }
    if (!strstr(conns[i].answer, "Content-Length: 32\r\n")) die("the first answer has no 32 byte body");
    expected = conns[i].got;
    memcpy(body, conns[i].answer + expected - BODY, BODY);
}

/* 1 when the answer is complete. */
static int receive(int i) {
    struct conn* c = &conns[i];
    ssize_t n = recv(c->fd, c->answer + c->got, MOST - c->got, MSG_DONTWAIT);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return 0;
        errors++;
        c->got = expected;
        return 1;
    }
    c->got += n;
    if (c->got < expected) return 0;
    if (c->got > expected || memcmp(c->answer + expected - BODY, body, BODY)) wrong++;
    return 1;
}

static int by_size(const void* a, const void* b) {
    uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char** argv) {
    if (argc < 5) return fprintf(stderr, "usage: paced PORT CONNECTIONS RATE SECONDS [REQUESTS_PER_CONNECTION]\n"), 2;
    port = atoi(argv[1]);
    int count = atoi(argv[2]), epfd = epoll_create1(EPOLL_CLOEXEC);
    int64_t total = (int64_t)(atof(argv[3]) * atof(argv[4])), sent = 0, answered = 0;
    double gap = 1e9 / atof(argv[3]);
    turnover = argc > 5 ? atoi(argv[5]) : 0;
    uint32_t* latency_us10 = calloc(total + 1, sizeof(uint32_t));
    if (count < 1 || count > MAX_CONNS || total < 1 || !latency_us10) return 2;
    for (int i = 0; i < count; i++) conn_open(epfd, i), idle[idle_count++] = i;
    learn(0);
    int64_t start = now_ns() + 1000000, end = start + (int64_t)(total * gap) + 5000000000LL, now;
    while (answered < total && (now = now_ns()) < end && errors < 1000) {
        while (sent < total && idle_count && start + (int64_t)(sent * gap) <= now) {
            int64_t due = start + (int64_t)(sent++ * gap);
            request(idle[--idle_count], due);
        }
        int64_t wait = sent < total && idle_count ? start + (int64_t)(sent * gap) - now_ns() : 100000000;
        if (wait < 0) wait = 0;
        struct timespec span = {wait / 1000000000, wait % 1000000000};
        struct epoll_event events[256];
        int n = epoll_pwait2(epfd, events, 256, &span, NULL);
        for (int k = 0; k < n; k++) {
            int i = events[k].data.u32;
            if (!receive(i)) continue;
            if (!conns[i].due) { errors++; epoll_ctl(epfd, EPOLL_CTL_DEL, conns[i].fd, NULL); continue; }
            latency_us10[answered++] = (now_ns() - conns[i].due) / 100;
            conns[i].due = 0;
            if (turnover && ++conns[i].done >= turnover) close(conns[i].fd), conn_open(epfd, i);
            idle[idle_count++] = i;
        }
    }
    double seconds = (now_ns() - start) / 1e9;
    qsort(latency_us10, answered, sizeof(uint32_t), by_size);
    if (!answered) return fprintf(stderr, "paced: no answer\n"), 1;
#define AT(share) (latency_us10[(int64_t)((answered - 1) * (share))] / 10.0)
    printf("{\"asked\": %ld, \"answered\": %ld, \"opened\": %ld, \"errors\": %ld, \"wrong\": %ld, \"seconds\": %.3f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           (long)total, (long)answered, (long)opened, (long)(errors + total - answered), (long)wrong, seconds, AT(0.5),
           AT(0.99), AT(0.999), AT(1.0));
    return 0;
}
