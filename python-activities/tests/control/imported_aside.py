"""Remembers how the thread that imported it was scheduled, and whether garbage was looked for."""

import gc
import os
import threading

policy = os.sched_getscheduler(0)
thread = threading.get_native_id()
collecting = gc.isenabled()
