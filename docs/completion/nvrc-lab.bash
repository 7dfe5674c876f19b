# bash completion of nvrc-lab: source it, or lay it into a folder that bash-completion reads.
_nvrc_lab() {
    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at/$word" in
            '/boot') at='boot' ;;
            '/list') at='list' ;;
            '/matrix') at='matrix' ;;
            '/explain') at='explain' ;;
            '/bench') at='bench' ;;
            '/soak') at='soak' ;;
            '/life') at='life' ;;
        esac
    done
    case "$at $previous" in
        'boot --accel') words='auto kvm tcg counted' ;;
        'matrix --accel') words='auto kvm tcg' ;;
        'bench --modules') words='init early both' ;;
        'bench --accel') words='auto kvm tcg counted' ;;
        'soak --accel') words='auto kvm tcg counted' ;;
        'life --accel') words='auto kvm tcg' ;;
        *) case "$at" in
        '') words='boot list matrix explain bench soak life -h --help --version' ;;
        'boot') words='-h --help --kernel --initrd --agent --cmdline --accel --memory --cpus --timeout --linger --console --verbose --json' ;;
        'list') words='-h --help --folder --json' ;;
        'matrix') words='-h --help --all --folder --real-driver --workers --keep --agent --accel --slow --json' ;;
        'explain') words='-h --help --json' ;;
        'bench') words='-h --help --runs --vs --modules --vs-file --image --accel --svg --json' ;;
        'soak') words='-h --help --boots --load --workers --seed --accel --json' ;;
        'life') words='-h --help --hours --accel --json' ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _nvrc_lab nvrc-lab
