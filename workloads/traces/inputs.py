"""Writes the larger inputs of the recorded programs into the folder it is started in. Fixed seeds: the same files everywhere.

tree/      1,500 files of invented prose in a git repository with 60 commits (search tools, git)
doc.xml    a catalogue of 24,000 items
doc.json   60,000 records, a line each
factors.smt2  a product of two primes, for the solver
project/   a C program of nine files with a Makefile
site/      pages for the web server; nginx.conf
"""

import json
import os
import random
import subprocess

random.seed(22)
WORDS = ["".join(random.choice("etaoinshrdlucm") for _ in range(random.randint(2, 11))) for _ in range(12000)]


def prose(lines):
    return "\n".join(" ".join(random.choice(WORDS) for _ in range(random.randint(3, 14))) for _ in range(lines))


def write(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="ascii") as out:
        out.write(text)


def tree():
    for folder in range(60):
        for number in range(25):
            inner = WORDS[folder + 100] if number % 2 else "."
            ending = random.choice(["c", "h", "txt", "md"])
            name = f"{WORDS[200 + number]}{number}.{ending}"
            write(f"tree/{WORDS[folder]}/{inner}/{name}", prose(random.randint(20, 300)))


def repository():
    fixed = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*words):
        command = ["/usr/bin/git", "-C", "tree", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gc.auto=0", *words]
        subprocess.run(command, check=True, env={**os.environ, **fixed})

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    files = sorted(os.path.join(at, name) for at, _, names in os.walk("tree") if ".git" not in at for name in names)
    for commit in range(60):
        for path in random.sample(files, 15):
            with open(path, encoding="ascii") as text:
                lines = text.read().split("\n")
            for _ in range(5):
                lines[random.randrange(len(lines))] = f"changed {commit} {random.random()}"
            write(path, "\n".join(lines))
        git("commit", "-q", "-a", "-m", f"change {commit}")


def documents():
    items = []
    for number in range(24000):
        tags = "".join(f"<tag>{random.choice(WORDS[:200])}</tag>" for _ in range(random.randint(0, 5)))
        items.append(
            f" <item id='{number}' kind='{random.choice(WORDS[:30])}'><name>{random.choice(WORDS)}</name>"
            f"<price currency='EUR'>{random.random() * 100:.2f}</price>{tags}<text>{prose(1)}</text></item>\n"
        )
    write("doc.xml", "<?xml version='1.0'?>\n<catalog>\n" + "".join(items) + "</catalog>\n")
    records = [
        {"id": number, "user": random.choice(WORDS), "n": [random.randint(0, 999) for _ in range(random.randint(0, 9))], "text": prose(1)}
        for number in range(60000)
    ]
    write("doc.json", "".join(json.dumps(record) + "\n" for record in records))


def factors():
    """Two factors of a product of primes, for bit vectors: much search, little luck."""
    p, q, bits, most = 262_127, 262_111, 38, 270_000
    write(
        "factors.smt2",
        f"(set-logic QF_BV)\n(declare-const x (_ BitVec {bits}))\n(declare-const y (_ BitVec {bits}))\n"
        f"(assert (bvult x (_ bv{most} {bits})))\n(assert (bvult y (_ bv{most} {bits})))\n"
        f"(assert (bvugt x (_ bv1 {bits})))\n(assert (bvule x y))\n(assert (= (bvmul x y) (_ bv{p * q} {bits})))\n"
        "(check-sat)\n(get-model)\n",
    )


def project():
    parts = range(8)
    for part in parts:
        text = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n"
        for number in range(24):
            rest = f"f{number - 1}(y, n / 2)" if number else "y"
            text += (
                f"static double f{number}(double x, int n) {{ double y = x; for (int i = 0; i < n; i++) {{ "
                f"y = y * {random.random():.3f} + {random.random():.3f}; if (y > {random.randint(10, 99)}) y -= {number + 1}; }} return {rest}; }}\n"
            )
        text += f'double part{part}(int n) {{ char *s = malloc(64); snprintf(s, 64, "%d", n); double y = f23(strlen(s), n); free(s); return y; }}\n'
        write(f"project/part{part}.c", text)
    calls = " + ".join(f"part{part}({part + 5})" for part in parts)
    declared = "".join(f"double part{part}(int);\n" for part in parts)
    write("project/main.c", f'#include <stdio.h>\n{declared}int main(void) {{ printf("%g\\n", {calls}); }}\n')
    objects = " ".join(f"part{part}.o" for part in parts)
    write("project/Makefile", f"OBJECTS = main.o {objects}\napp: $(OBJECTS)\n\tgcc -o $@ $(OBJECTS) -lm\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\n")


def site():
    for page in range(200):
        write(f"site/page{page}.html", "<html><body><p>" + prose(random.randint(3, 200)) + "</p></body></html>\n")
    write(
        "nginx.conf",
        "daemon off; master_process off; error_log stderr crit; pid nginx.pid;\n"
        "events { worker_connections 256; }\n"
        "http { access_log off; gzip on; gzip_types text/plain; ssi_types text/plain; gzip_min_length 1; types { text/plain html; }\n"
        "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
        "server { listen 127.0.0.1:18080; root site; autoindex on; ssi on; } }\n",
    )
    urls = [f"http://127.0.0.1:18080/page{random.randrange(200)}.html" for _ in range(12000)]
    write("urls.txt", "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))


tree()
repository()
documents()
factors()
project()
site()
