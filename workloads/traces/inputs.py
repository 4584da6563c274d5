"""Writes the larger inputs of the recorded programs into the folder it is started in. Fixed seeds: the same files everywhere.

tree/      1,500 files of invented prose in a git repository with 60 commits (search tools, git)
doc.xml    a catalogue of 24,000 items
doc.json   60,000 records, a line each
jobs.smt2  a job-shop problem for the solver
project/   a C program of nine files with a Makefile
site/      pages for the web server; nginx.conf
"""

import json
import os
import random
import subprocess

random.seed(22)
WORDS = ["".join(random.choice("etaoinshrdlucm") for _ in range(random.randint(2, 11))) for _ in range(4000)]


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


def jobs():
    """Jobs on machines without overlap, within a time that is hard to keep."""
    machines, count, horizon = 4, 36, 58
    lengths = [random.randint(3, 9) for _ in range(count)]
    lines = ["(set-logic QF_IDL)"]
    for job in range(count):
        lines.append(f"(declare-const s{job} Int)(assert (>= s{job} 0))(assert (<= s{job} {horizon - lengths[job]}))")
    for machine in range(machines):
        own = list(range(machine, count, machines))
        for place, left in enumerate(own):
            for right in own[place + 1 :]:
                lines.append(f"(assert (or (<= (- s{left} s{right}) (- {lengths[left]})) (<= (- s{right} s{left}) (- {lengths[right]}))))")
    for job in range(0, count - 5, 2):
        lines.append(f"(assert (<= (- s{job} s{job + 5}) (- {lengths[job]})))")
    lines.append("(check-sat)(get-model)")
    write("jobs.smt2", "\n".join(lines) + "\n")


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
    here = os.getcwd()
    write(
        "nginx.conf",
        "daemon off; master_process off; error_log stderr crit; pid nginx.pid;\n"
        "events { worker_connections 256; }\n"
        "http { access_log off; gzip on; gzip_types text/html; gzip_min_length 1; types { text/html html; }\n"
        "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
        f"server {{ listen 127.0.0.1:18080; root {here}/site; autoindex on; ssi on; }} }}\n",
    )
    urls = [f"http://127.0.0.1:18080/page{random.randrange(200)}.html" for _ in range(4000)]
    write("urls.txt", "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))


tree()
repository()
documents()
jobs()
project()
site()
