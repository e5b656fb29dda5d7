/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_VERSION_H
#define QKDGATE_VERSION_H

#define QG_VERSION "0.3.0"

#endif
