/* A camera at /dev/video0 for programs that are started with this library in LD_PRELOAD.
 *
 * It answers what FFmpeg's V4L2 demuxer asks: 64 x 48 frames in YUYV, thirty a second, whose brightness is the
 * number of the frame since it was plugged in, modulo 256. CAMERA_PLAN says how many frames it sends each time that
 * it is plugged in, such as "60,30"; in between it is away for CAMERA_AWAY milliseconds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, SIZE = WIDTH * HEIGHT * 2, BUFFERS = 8, PERIOD_NS = 33333333 };

static int camera = -1;
static uint8_t *memory[BUFFERS];
static int queue[BUFFERS], queued;
static long taken, planned;
static const char *plan;
static int64_t gone_until;

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int fail(int error) {
    errno = error;
    return -1;
}

static int plug_in(void) {
    if (!plan) plan = getenv("CAMERA_PLAN");
    if (now_ns() < gone_until || !*plan) return fail(ENOENT);
    struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}};
    camera = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(camera, 0, &period, NULL);
    planned = atol(plan);
    queued = taken = 0;
    return camera;
}

static int set_format(struct v4l2_format *format) {
    struct v4l2_pix_format *pix = &format->fmt.pix;
    if (format->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
    pix->width = WIDTH;
    pix->height = HEIGHT;
    pix->pixelformat = V4L2_PIX_FMT_YUYV;
    pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = WIDTH * 2;
    pix->sizeimage = SIZE;
    return 0;
}

static int take(struct v4l2_buffer *buffer) {
    uint64_t ticks;
    if (taken >= planned) return fail(ENODEV);
    if (!queued || read(camera, &ticks, sizeof ticks) != sizeof ticks) return fail(EAGAIN);
    int index = queue[0];
    memmove(queue, queue + 1, --queued * sizeof *queue);
    for (int pixel = 0; pixel < SIZE; pixel += 2) {
        memory[index][pixel] = (uint8_t)taken;
        memory[index][pixel + 1] = 128;
    }
    int64_t time = now_ns();
    memset(buffer, 0, sizeof *buffer);
    buffer->index = index;
    buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer->memory = V4L2_MEMORY_MMAP;
    buffer->bytesused = buffer->length = SIZE;
    buffer->sequence = taken++;
    buffer->timestamp.tv_sec = time / 1000000000;
    buffer->timestamp.tv_usec = time / 1000 % 1000000;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    struct v4l2_capability *capability = argument;
    struct v4l2_input *input = argument;
    struct v4l2_streamparm *parameters = argument;
    struct v4l2_requestbuffers *wanted = argument;
    struct v4l2_buffer *buffer = argument;
    switch (request) {
    case VIDIOC_QUERYCAP:
        memset(capability, 0, sizeof *capability);
        strcpy((char *)capability->driver, "test");
        strcpy((char *)capability->card, "Camera of the tests");
        capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    case VIDIOC_G_INPUT:
        *(int *)argument = 0;
        return 0;
    case VIDIOC_ENUMINPUT:
        if (input->index) return fail(EINVAL);
        memset(input, 0, sizeof *input);
        input->type = V4L2_INPUT_TYPE_CAMERA;
        return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT:
        return set_format(argument);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM:
        parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parameters->parm.capture.timeperframe.numerator = 1;
        parameters->parm.capture.timeperframe.denominator = 30;
        return 0;
    case VIDIOC_REQBUFS:
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        return 0;
    case VIDIOC_QUERYBUF:
        buffer->length = SIZE;
        buffer->m.offset = buffer->index * (1 << 20);
        return 0;
    case VIDIOC_QBUF:
        queue[queued++] = buffer->index;
        return 0;
    case VIDIOC_DQBUF:
        return take(buffer);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        return 0;
    default:
        return fail(EINVAL);
    }
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        if (!strcmp(path, "/dev/video0")) return plug_in();                                                            \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int mode = va_arg(rest, int);                                                                                  \
        va_end(rest);                                                                                                  \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode);                          \
    }

OPEN(open)
OPEN(open64)

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd >= 0 && fd == camera) return answer(request & 0xffffffff, argument);
    return ((int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
}

#define MMAP(name)                                                                                                     \
    void *name(void *at, size_t length, int protection, int flags, int fd, off_t offset) {                             \
        void *(*next)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name);                                 \
        if (fd < 0 || fd != camera) return next(at, length, protection, flags, fd, offset);                            \
        return memory[offset >> 20] = next(at, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);    \
    }

MMAP(mmap)
MMAP(mmap64)

int close(int fd) {
    if (fd >= 0 && fd == camera) {
        camera = -1;
        if (taken >= planned) {
            plan += strspn(plan, "0123456789");
            plan += strspn(plan, ",");
            gone_until = now_ns() + atol(getenv("CAMERA_AWAY")) * 1000000LL;
        }
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "close"))(fd);
}
