// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* An emulated ib_umad.ko: there to be loaded. */
#include <linux/module.h>

static int __init umad_init(void)
{
	return 0;
}

static void __exit umad_exit(void)
{
}

module_init(umad_init);
module_exit(umad_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("emulated InfiniBand management datagrams, for tests");
