FROM python:3.11-slim

WORKDIR /app
COPY locks/runtime.txt locks/
RUN pip install --no-cache-dir --no-deps --require-hashes -r locks/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY pricing pricing
COPY warehouse warehouse
COPY collector collector
COPY dashboard dashboard
RUN pip install --no-cache-dir --no-deps . \
 && useradd --system --home-dir /var/lib/millicent millicent \
 && install --directory --owner=millicent --group=millicent --mode=0700 /var/lib/millicent /var/lib/millicent/spool

USER millicent
WORKDIR /var/lib/millicent
ENV MILLICENT_DATA=/var/lib/millicent PYTHONUNBUFFERED=1
# The spool is a volume of its own so that it can be given the faster disk.
VOLUME ["/var/lib/millicent", "/var/lib/millicent/spool"]
EXPOSE 8050 4317 4318
HEALTHCHECK --start-period=30s CMD ["python", "-c", "from urllib.request import urlopen as get; get('http://127.0.0.1:8050/readyz', timeout=2); get('http://127.0.0.1:4318/readyz', timeout=2)"]
# The ports speak plain HTTP: only a proxy with TLS may reach them.
CMD ["millicent", "up", "--host", "0.0.0.0", "--behind-proxy"]
