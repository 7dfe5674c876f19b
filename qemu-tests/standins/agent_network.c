// SPDX-License-Identifier: Apache-2.0
/*
 * The pod's network, as kata-agent sets it up when the runtime asks: address and default route on the first link that is
 * not the loopback. Addresses are those of QEMU's user network.
 */
#include "agent.h"
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDRESS "10.0.2.15"
#define MASK "255.255.255.0"
#define GATEWAY "10.0.2.2"

enum { PATIENCE_MS = 5000, STEP_MS = 50 };

static struct sockaddr inet(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct sockaddr plain;

	inet_pton(AF_INET, text, &address.sin_addr);
	memcpy(&plain, &address, sizeof(plain));
	return plain;
}

static bool find_link(char *name)
{
	struct if_nameindex *links = if_nameindex();
	bool found = false;

	for (struct if_nameindex *one = links; one && one->if_index && !found; one++)
		if (strcmp(one->if_name, "lo")) {
			strncpy(name, one->if_name, IFNAMSIZ - 1);
			found = true;
		}
	if_freenameindex(links);
	return found;
}

void join_network(void)
{
	struct ifreq link = { 0 };
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int waited = 0;

	while (!find_link(link.ifr_name) && waited < PATIENCE_MS) {
		usleep(STEP_MS * 1000);
		waited += STEP_MS;
	}
	link.ifr_addr = inet(ADDRESS);
	bool good = sock >= 0 && ioctl(sock, SIOCSIFADDR, &link) == 0;
	link.ifr_netmask = inet(MASK);
	good = good && ioctl(sock, SIOCSIFNETMASK, &link) == 0;
	link.ifr_flags = IFF_UP | IFF_RUNNING;
	good = good && ioctl(sock, SIOCSIFFLAGS, &link) == 0;
	route.rt_dst = inet("0.0.0.0");
	route.rt_genmask = inet("0.0.0.0");
	route.rt_gateway = inet(GATEWAY);
	good = good && ioctl(sock, SIOCADDRT, &route) == 0;
	if (good)
		tell("agent: network %s %s\n", link.ifr_name, ADDRESS);
	else
		tell("agent: network failed %s\n", strerror(errno));
	close(sock);
}
