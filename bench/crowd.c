/* Short connections from many addresses: what a large stick table costs.
 *
 *     crowd PORT CLIENTS CONNECTIONS AT_ONCE [once]
 *
 * Each connection comes from one of CLIENTS addresses in 127.16.0.0 and up, chosen at random (with "once": each in
 * turn, so that the table gets to know all of them), asks for /s and reads to the end of the answer, which must hold the
 * body.  Closing sends RST and leaves nothing in TIME_WAIT.  Prints one JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, MAX_CONNS = 1024 };
static const char REQUEST[] = "GET /s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
static const char BODY[] = "0123456789abcdef0123456789abcdef";

struct conn {
    int fd, got, asked;
    char answer[MOST];
};

static struct conn conns[MAX_CONNS];
static int epfd, port;
static uint32_t clients, state = 2463534242u;
static int64_t begun, errors, wrong;

static uint32_t dice(void) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

static void conn_open(int i, int in_turn) {
    uint32_t client = in_turn ? (uint32_t)(begun % clients) : dice() % clients;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7F100000u + client)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = i};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    begun++;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr*)&from, sizeof from) < 0 ||
        (connect(fd, (struct sockaddr*)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        perror("crowd: connect");
        exit(1);
    }
    conns[i].fd = fd, conns[i].got = conns[i].asked = 0;
    epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

/* 1 when the connection is over. */
static int serve(int i) {
    struct conn* c = &conns[i];
    if (!c->asked) {
        if (send(c->fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) != sizeof REQUEST - 1) return errors++, 1;
        c->asked = 1;
    }
    for (;;) {
        ssize_t n = recv(c->fd, c->answer + c->got, MOST - 1 - c->got, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n < 0) return errors++, 1;
        c->got += n;
        if (n > 0 && c->got < MOST - 1) continue;
        c->answer[c->got] = 0;
        if (!strstr(c->answer, BODY)) wrong++;
        return 1;
    }
}

int main(int argc, char** argv) {
    if (argc < 5) return fprintf(stderr, "usage: crowd PORT CLIENTS CONNECTIONS AT_ONCE [once]\n"), 2;
    int64_t wanted = atoll(argv[3]), done = 0;
    int at_once = atoi(argv[4]), in_turn = argc > 5;
    struct linger now = {1, 0};
    struct timespec began, ended;
    port = atoi(argv[1]), clients = atoi(argv[2]), epfd = epoll_create1(EPOLL_CLOEXEC);
    if (at_once < 1 || at_once > MAX_CONNS || clients < 1 || wanted < at_once) return 2;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int i = 0; i < at_once; i++) conn_open(i, in_turn);
    while (done < wanted) {
        struct epoll_event events[256];
        int n = epoll_wait(epfd, events, 256, 10000);
        if (n <= 0) return fprintf(stderr, "crowd: nothing happened for 10 s\n"), 1;
        for (int k = 0; k < n; k++) {
            int i = events[k].data.u32;
            if (!(events[k].events & EPOLLIN) && !(events[k].events & EPOLLOUT)) errors++;
            else if (!serve(i)) continue;
            setsockopt(conns[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            close(conns[i].fd);
            done++;
            if (begun < wanted) conn_open(i, in_turn);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("{\"connections\": %ld, \"errors\": %ld, \"wrong\": %ld, \"seconds\": %.3f}\n", (long)done, (long)errors,
           (long)wrong, ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
