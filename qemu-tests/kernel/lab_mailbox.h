/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the lab tells the emulated driver about a function, and what the function remembers: a vendor-specific extended
 * capability in its configuration space. As it lives in the device, a
 * reset of the function clears exactly the state that hardware would lose.
 * Offsets count from the start of the capability; numbers are little endian, texts end with a zero byte.
 */
#ifndef LAB_MAILBOX_H
#define LAB_MAILBOX_H

#define LAB_VSEC_ID		0x4c42	/* "LB", in the VSEC header at offset 4 */
#define LAB_VSEC_LENGTH		0xc0

#define LAB_ATTACH_MS		0x08	/* time that an attach takes */
#define LAB_FAULTS		0x0c	/* LAB_FAULT_* */
#define LAB_STATE		0x10	/* LAB_STATE_*; writable; a function reset clears it */
#define LAB_CC			0x14	/* LAB_CC_*; any other value is a mode nobody knows */
#define LAB_MINOR		0x18	/* minor number of the node; LAB_MINOR_NEXT: in order of probing */
#define LAB_STATUS		0x1c	/* last number of "RmInitAdapter failed!" */
#define LAB_UUID		0x20	/* 16 bytes, in the order they are printed */
#define LAB_RESETS		0x30	/* resets so far; read only */
#define LAB_MODEL		0x40	/* 64 bytes of text */
#define LAB_VBIOS		0x80	/* 32 bytes of text */
#define LAB_MIG			0xa0	/* 16 bytes: the compute instances of each GPU instance as bits; 0 = no such instance */
#define LAB_PORT_MASK		0xb0	/* network functions: capability mask of port 1 */
#define LAB_PORT_STATE		0xb4	/* 4 = ACTIVE */
#define LAB_PORT_GUID		0xb8	/* 8 bytes, in the order they are printed */
#define LAB_MODEL_SIZE		64
#define LAB_VBIOS_SIZE		32
#define LAB_MIG_INSTANCES	15
#define LAB_MIG_COMPUTE		8

#define LAB_MINOR_NEXT		0xffffffffu

#define LAB_FAULT_ATTACH	0x1	/* every attach fails */
#define LAB_FAULT_HANG		0x2	/* an attach does not return until the process is killed */
#define LAB_FAULT_PROBE		0x4	/* the driver's probe refuses the function */
#define LAB_FAULT_STICKY	0x8	/* a reset does not clear LAB_STATE: a wedged GPU */

#define LAB_FAULT_NVLINK	0x10	/* an attach fails unless the driver runs with NVreg_NvLinkDisable=1 */
#define LAB_FAULT_GID		0x20	/* a network function whose port has no GID */

#define LAB_STATE_ATTACHED	0x1	/* initialised once since the last reset */

#define LAB_PORT_SM_DISABLED	0x400	/* in the capability mask: no subnet manager may run on this port */

#define LAB_CLASS_INFINIBAND	0x0207	/* no header of the kernel has it */

#define LAB_CC_OFF		0
#define LAB_CC_ON		1
#define LAB_CC_DEVTOOLS		2
#define LAB_CC_PPCIE		3

#endif
