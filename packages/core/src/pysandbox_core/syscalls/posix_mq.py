"""mq_open(2) and the other calls of POSIX message queues, which are not there."""

from __future__ import annotations

from errno import ENOSYS

from pysandbox_core.declare import refused

for _name in (
    "mq_open",
    "mq_unlink",
    "mq_timedsend",
    "mq_timedreceive",
    "mq_notify",
    "mq_getsetattr",
):
    refused(_name, ENOSYS, "as where CONFIG_POSIX_MQUEUE is not set")
