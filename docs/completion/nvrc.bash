# bash completion of nvrc: source it, or lay it into a folder that bash-completion reads.
_nvrc() {
    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at/$word" in
            '/plan') at='plan' ;;
            '/params') at='params' ;;
            'params/list') at='params list' ;;
            'params/check') at='params check' ;;
            'params/explain') at='params explain' ;;
            '/policy') at='policy' ;;
            'policy/check') at='policy check' ;;
            'policy/explain') at='policy explain' ;;
            'policy/suggest') at='policy suggest' ;;
            '/initdata') at='initdata' ;;
            'initdata/make') at='initdata make' ;;
            'initdata/check') at='initdata check' ;;
            'initdata/digest') at='initdata digest' ;;
            '/explain') at='explain' ;;
            '/report') at='report' ;;
            '/topology') at='topology' ;;
            '/status') at='status' ;;
            '/doctor') at='doctor' ;;
            '/version') at='version' ;;
        esac
    done
    case "$at $previous" in
        'initdata make --algorithm') words='sha256 sha384 sha512' ;;
        'initdata make --as') words='annotation toml disk' ;;
        *) case "$at" in
        '') words='plan params policy initdata explain report topology status doctor version' ;;
        'plan') words='-h --help --cmdline --machine --sysfs --root --record --policy --initdata --json' ;;
        'params') words='list check explain -h --help' ;;
        'params list') words='-h --help --json' ;;
        'params check') words='-h --help --json --policy --file' ;;
        'params explain') words='-h --help --json' ;;
        'policy') words='check explain suggest -h --help' ;;
        'policy check') words='-h --help --json --cmdline' ;;
        'policy explain') words='-h --help --json' ;;
        'policy suggest') words='-h --help --json --class' ;;
        'initdata') words='make check digest -h --help' ;;
        'initdata make') words='-h --help --algorithm --as --policy' ;;
        'initdata check') words='-h --help --json --policy --cmdline' ;;
        'initdata digest') words='-h --help --json' ;;
        'explain') words='-h --help --json' ;;
        'report') words='-h --help --json --svg --board' ;;
        'topology') words='-h --help --json' ;;
        'status') words='-h --help --file --socket --vm --port --json' ;;
        'doctor') words='-h --help --sandbox --host --root --node --export --json' ;;
        'version') words='-h --help --json' ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _nvrc nvrc
