#include "os/terminal.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { USUAL_WIDTH = 80 };

int mp_terminal_width(int fd) {
    struct winsize size = {0};
    if (!isatty(fd)) return -errno;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return USUAL_WIDTH;
    return size.ws_col;
}
