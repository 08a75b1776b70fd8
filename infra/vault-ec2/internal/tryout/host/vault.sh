# The Vault of the tryout. The lines before these set AWS_DEFAULT_REGION, PUBLIC_ADDRESS, VAULT_VERSION, CA_SECRET and TOKEN_SECRET.
# It unseals itself once, at its first start; nothing else depends on it, and it is removed with the tryout.
set -euo pipefail
umask 077
export HOME=/root

# The public address is associated after the instance exists.
until curl -sfm 5 -o /dev/null https://rpm.releases.hashicorp.com/gpg; do sleep 2; done

home=${VAULT_HOME:-/opt/vault} etc=${VAULT_ETC:-/etc/vault.d}
metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest
session=$(curl -sfX PUT "$metadata/api/token" -H 'X-aws-ec2-metadata-token-ttl-seconds: 300')
item() { curl -sf -H "X-aws-ec2-metadata-token: $session" "$metadata/meta-data/$1" || true; }

private=$(item local-ipv4)
ipv6=$(item ipv6)

dnf -y install dnf-plugins-core
dnf config-manager --add-repo https://rpm.releases.hashicorp.com/AmazonLinux/hashicorp.repo
dnf -y install "vault-$VAULT_VERSION" openssl

# A CA that lives as long as the tryout, and the server's certificate for its three addresses.
mkdir -p "$home/tls" "$home/data"
cd "$home/tls"
names="IP:$PUBLIC_ADDRESS,IP:$private${ipv6:+,IP:$ipv6}"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj '/CN=Vault of the tryout' -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=vault -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 7 -out server.pem \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names")
rm ca.key server.csr

cat >"$home/vault.hcl" <<HCL
storage "raft" {
  path    = "$home/data"
  node_id = "tryout"
}
listener "tcp" {
  address       = "[::]:8200"
  tls_cert_file = "$home/tls/server.pem"
  tls_key_file  = "$home/tls/server.key"
}
api_addr      = "https://$private:8200"
cluster_addr  = "https://$private:8201"
disable_mlock = true
HCL
if id vault >/dev/null 2>&1; then chown -R vault: "$home"; fi
install -d "$etc"
install -m 644 "$home/vault.hcl" "$etc/vault.hcl"
systemctl enable --now vault

export VAULT_ADDR="https://$private:8200" VAULT_CACERT="$home/tls/ca.pem"
until vault status >/dev/null 2>&1 || [ $? -eq 2 ]; do sleep 1; done
init=$(vault operator init -key-shares=1 -key-threshold=1 -format=json)
field() { python3 -c 'import json, sys; v = json.load(sys.stdin)[sys.argv[1]]; print(v[0] if isinstance(v, list) else v)' "$1" <<<"$init"; }
vault operator unseal "$(field unseal_keys_b64)" >/dev/null
until VAULT_TOKEN=$(field root_token) vault token lookup >/dev/null 2>&1; do sleep 1; done

# The root token last: who waits for it finds everything else.
aws secretsmanager put-secret-value --secret-id "$CA_SECRET" --secret-string "file://$home/tls/ca.pem" >/dev/null
printf '{"token": "%s", "public": "%s", "private": "%s", "ipv6": "%s"}' "$(field root_token)" "https://$PUBLIC_ADDRESS:8200" "https://$private:8200" \
  "${ipv6:+https://[$ipv6]:8200}" >"$home/facts.json"
aws secretsmanager put-secret-value --secret-id "$TOKEN_SECRET" --secret-string "file://$home/facts.json" >/dev/null
rm "$home/facts.json"
