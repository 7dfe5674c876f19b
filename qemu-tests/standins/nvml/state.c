/* SPDX-License-Identifier: Apache-2.0 */
/* The one machine: what parse.c fills, the calls change and machine.c writes down. */
#include "machine.h"

struct machine machine;
