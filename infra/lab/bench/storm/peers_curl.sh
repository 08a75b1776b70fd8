# One object after the other, as such loops are written: the number of the file with its fields, and its path.
set -euo pipefail
ask() { curl -sS --cacert "$VAULT_CACERT" -H "X-Vault-Token: $VAULT_TOKEN" "$@"; }
while read -r n path; do
  url=$VAULT_ADDR/v1/$path
  case $1 in
    create) ask -f -X PUT --data "@$n" "$url" >/dev/null; ask -f "$url" | sed 's/"request_id":"[^"]*"//' >"$n.seen" ;;
    check) ask -f "$url" | sed 's/"request_id":"[^"]*"//' | cmp -s - "$n.seen" ;;
    repair) ask "$url" | sed 's/"request_id":"[^"]*"//' | cmp -s - "$n.seen" || ask -f -X PUT --data "@$n" "$url" >/dev/null ;;
    destroy) ask -f -X DELETE "$url" >/dev/null ;;
  esac
done <list
