# Loads JSON a few times; prints seconds of the loads: wall, CPU, waiting for a CPU, and CPU of the quickest load.
import json
import time

rows = [{"k%d" % i: [i] * 5, "s": "x" * (i % 90)} for i in range(60000)]
text = json.dumps(rows)
del rows


def waited():
    return int(open("/proc/self/schedstat").read().split()[1]) / 1e9


before, wall, cpu = waited(), time.perf_counter(), time.process_time()
least = cpu
for _ in range(4):
    begun = time.process_time()
    json.loads(text)
    least = min(least, time.process_time() - begun)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, waited() - before, least)
