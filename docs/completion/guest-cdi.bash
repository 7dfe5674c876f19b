# bash completion of guest-cdi: source it, or lay it into a folder that bash-completion reads.
_guest_cdi() {
    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at/$word" in
            '/generate') at='generate' ;;
            '/validate') at='validate' ;;
            '/inject') at='inject' ;;
            '/hook') at='hook' ;;
        esac
    done
    case "$at $previous" in
        'generate --format') words='yaml json' ;;
        'generate --mode') words='auto nvml nic ib gdrcopy gds imex management mofed nvswitch' ;;
        'generate --discovery-mode') words='auto nvml nic ib gdrcopy gds imex management mofed nvswitch' ;;
        'generate --compat') words='nvidia-ctk' ;;
        'generate --hook-style') words='auto separate combined' ;;
        *) case "$at" in
        '') words='generate validate inject hook' ;;
        'generate') words='-h --help --output --format --mode --discovery-mode --driver-root --dev-root --nvidia-cdi-hook-path --nvidia-ctk-path --ldconfig-path --device-name-strategy --device-id --device-ids --device --devices --vendor --cdi-vendor --class --cdi-class --library-search-path --config-search-path --disable-hook --disable-hooks --enable-hook --enable-hooks --feature-flag --feature-flags --no-all-device --root --nvml-library --compat --hook-style --reference-release --keep-going --json --quiet' ;;
        'validate') words='-h --help --json' ;;
        'inject') words='-h --help --bundle --spec --spec-dir --root --dry-run --json' ;;
        'hook') words='' ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _guest_cdi guest-cdi
