// SPDX-License-Identifier: Apache-2.0
/* GPUs as the driver lists them in procfs, and their nodes as NVIDIA's libraries make and open them. */
#include "nvidia.h"
#include "common.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define GPUS "/proc/driver/nvidia/gpus"
#define SWITCHES "/proc/driver/nvidia-nvswitch/devices"
#define PORTS "/sys/class/infiniband"

enum { MAJOR = 195, MINOR_CONTROL = 255, FABRIC_PORT = 6667 };

/* `Name: \t value` of an information file. */
static void field(const char *text, const char *name, char *into, size_t size)
{
	const char *at = strstr(text, name);

	*into = '\0';
	if (!at)
		return;
	at += strlen(name);
	at += strspn(at, ": \t");
	size_t length = strcspn(at, "\n");

	if (length >= size)
		length = size - 1;
	memcpy(into, at, length);
	into[length] = '\0';
}

static void read_gpu(struct gpu *gpu)
{
	static char text[TEXT_MAX];
	char path[128], number[32];

	snprintf(path, sizeof(path), GPUS "/%s/information", gpu->place);
	if (read_text(path, text, sizeof(text)) < 0)
		return;
	field(text, "Model", gpu->model, sizeof(gpu->model));
	field(text, "GPU UUID", gpu->uuid, sizeof(gpu->uuid));
	field(text, "Device Minor", number, sizeof(number));
	gpu->minor = atoi(number);
	gpu->cc = -1;
	if (read_text("/proc/nvidia-lab", text, sizeof(text)) < 0)
		return;
	char *row = strstr(text, gpu->place), *at = row ? strstr(row, " cc=") : NULL;

	if (at)
		gpu->cc = strtol(at + 4, NULL, 10);
}

static int visible(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

int list_gpus(struct gpu *gpus)
{
	struct dirent **names;
	int found = scandir(GPUS, &names, visible, alphasort);

	for (int i = 0; i < found && i < GPUS_MAX; i++) {
		gpus[i] = (struct gpu){ .fd = -1 };
		snprintf(gpus[i].place, sizeof(gpus[i].place), "%.31s", names[i]->d_name);
		read_gpu(&gpus[i]);
	}
	return found;
}

int count_switches(void)
{
	struct dirent **names;
	int found = scandir(SWITCHES, &names, visible, alphasort);

	return found < 0 ? 0 : found;
}

bool has_fabric(void)
{
	return count_switches() > 0 || access(PORTS, F_OK) == 0;
}

/* Asked over the network, which all share: daemons do not see each other's folders. */
bool is_fabric_up(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(FABRIC_PORT),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

	if (fd >= 0)
		close(fd);
	return up;
}

void mark_fabric_up(void)
{
	listen_on_loopback(FABRIC_PORT);
}

static long driver_parameter(const char *name, long otherwise)
{
	static char text[TEXT_MAX];
	char value[32];

	if (read_text("/proc/driver/nvidia/params", text, sizeof(text)) < 0)
		return otherwise;
	field(text, name, value, sizeof(value));
	return *value ? strtol(value, NULL, 10) : otherwise;
}

static void make_node(int minor_number)
{
	char path[64];
	mode_t mode = (mode_t)driver_parameter("DeviceFileMode", 0666), mask = umask(0);

	snprintf(path, sizeof(path), minor_number == MINOR_CONTROL ? "/dev/nvidiactl" : "/dev/nvidia%d", minor_number);
	if (mknod(path, S_IFCHR | mode, makedev(MAJOR, (unsigned)minor_number)) == 0 &&
	    chown(path, (uid_t)driver_parameter("DeviceFileUID", 0), (gid_t)driver_parameter("DeviceFileGID", 0)) < 0)
		unlink(path);
	umask(mask);
}

void make_nodes(const struct gpu *gpus, int count)
{
	if (geteuid() || !driver_parameter("ModifyDeviceFiles", 1))
		return;
	make_node(MINOR_CONTROL);
	for (int i = 0; i < count; i++)
		make_node(gpus[i].minor);
}

bool open_gpu(struct gpu *gpu)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/nvidia%d", gpu->minor);
	gpu->fd = open(path, O_RDWR | O_CLOEXEC);
	int saved = errno;

	if (gpu->fd >= 0)
		read_gpu(gpu);
	errno = saved;
	return gpu->fd >= 0;
}

int open_all(struct gpu *gpus, int count)
{
	int opened = 0;

	make_nodes(gpus, count);
	if (open("/dev/nvidiactl", O_RDWR | O_CLOEXEC) < 0)
		return 0;
	for (int i = 0; i < count; i++)
		opened += open_gpu(&gpus[i]);
	return opened;
}
